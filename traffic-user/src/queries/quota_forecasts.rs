//! What a report says of quotas: what the present periods of its containers come to, and when allowances run out.

use jiff::Timestamp;
use traffic_ledger::{Ledger, Report};

use super::{QuotaFiles, quotas::Asker};
use crate::render::quota_forecasts::Forecasts;

/// Hands the quotas of some containers, by label, to what shows a report; those of all if there are none.
///
/// A report without the last reading says nothing of them: it is about what is over. Without quotas that have a
/// limit, it says nothing either. What cannot be read is part of what is shown: no report fails because of it.
pub fn with_forecasts<T>(
    ledger: &Ledger,
    files: Option<&QuotaFiles>,
    (report, containers): (&Report, &[String]),
    show: impl FnOnce(Option<&Forecasts<'_>>) -> T,
) -> T {
    let is_present = |at: &Timestamp| report.from <= *at && *at <= report.to;
    let Some((files, at)) = files.zip(report.last_reading.filter(is_present)) else { return show(None) };
    let quotas = match files.read() {
        Ok(quotas) if quotas.quotas.is_empty() => return show(None),
        Ok(quotas) => quotas,
        Err(error) => return show(Some(&Forecasts::unknown(&error))),
    };
    let asked = Asker::new(ledger).map_err(anyhow::Error::from);
    let asked =
        asked.and_then(|asker| asker.of_containers(containers).standings(&quotas, at, &(files.ids)()));
    match asked {
        Ok(mut standings) => {
            standings.retain(|standing| standing.allowance.is_some());
            let forecasts = Forecasts { standings: &standings, problem: None };
            show((!standings.is_empty()).then_some(&forecasts))
        }
        Err(error) => show(Some(&Forecasts::unknown(&error))),
    }
}
