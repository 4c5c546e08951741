//! What containers have used of their quotas, by the ledger. Figures come from ordinary reports, so that a
//! quota never differs from the report of the same span.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use jiff::{Timestamp, ToSpan as _, civil::Date};
use traffic_ledger::{
    Extent, KnownContainer, Ledger, LedgerError, PastTrack, QuotaLook, ReportQuery, ReportRow, SignedFigures,
    SignedVolume,
};
use traffic_model::calendar::five_minutes_of;
use traffic_quota::{
    Container, Forecast, Limit, Means, Quota, Quotas, Recent, Scope, Span, Used, allowance_in, forecast,
    permille, reached,
};

/// What a container has used of a quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<'q> {
    /// The container's id.
    pub container: String,
    /// What people call it, if that is known.
    pub name: Option<String>,
    /// The quota that decides.
    pub quota: &'q Quota,
    /// The period's name.
    pub label: String,
    /// The period.
    pub span: Span,
    /// The zone of the period.
    pub zone: String,
    /// Bytes, or bits per second; `None` without a limit.
    pub allowance: Option<u64>,
    /// The used part, or why it is not known.
    pub used: Result<u64, String>,
    /// What the period comes to.
    pub forecast: Option<Forecast>,
}

impl Standing<'_> {
    /// The used part in thousandths; `None` without a limit or a figure.
    pub fn permille(&self) -> Option<u64> {
        Some(permille(*self.used.as_ref().ok()?, self.allowance?))
    }

    /// The thresholds that are reached.
    pub fn reached(&self) -> Vec<u16> {
        match (&self.used, self.allowance) {
            (Ok(used), Some(allowance)) => reached(&self.quota.thresholds, *used, allowance),
            _ => Vec::new(),
        }
    }

    /// Whether so many percent are used, or it is not known how many.
    pub fn is_over(&self, percent: u16) -> bool {
        match (&self.used, self.allowance) {
            (Err(_), _) => true,
            (Ok(used), Some(allowance)) => !reached(&[percent], *used, allowance).is_empty(),
            (Ok(_), None) => false,
        }
    }
}

/// Asks the ledger about quotas, each span of time once.
pub struct Asker<'l> {
    ledger: &'l Ledger,
    extent: Extent,
    /// Only these, by label; empty for all.
    containers: Vec<String>,
    /// All containers with all their ids, by label; empty where there are no tenants.
    labels: Vec<(String, Vec<String>)>,
    figures: HashMap<Question, Result<Figures, String>>,
}

/// A quota's period at an instant.
#[derive(Clone, Debug)]
struct PeriodOf {
    span: Span,
    label: String,
    zone: String,
}

fn percentile_of(quota: &Quota) -> Option<f64> {
    match quota.limit {
        Limit::Rate { percentile, .. } => Some(percentile),
        _ => None,
    }
}

/// What a report is about: the span, the classes, and the bits of the percentile.
type Question = (Span, Vec<u8>, Option<u64>);
/// What was counted, by label.
type Figures = HashMap<String, Used>;

/// How far back periods are looked at that ended while nobody looked, in days.
const MOST_DAYS_CAUGHT_UP: i64 = 62;
/// How many whole days before the running one a forecast is made from.
const RECENT_DAYS_S: i64 = 7 * 86_400;

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("extent", &self.extent).finish_non_exhaustive()
    }
}

impl<'l> Asker<'l> {
    /// For a ledger.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(ledger: &'l Ledger) -> Result<Self, LedgerError> {
        Ok(Self {
            ledger,
            extent: ledger.extent()?,
            containers: Vec::new(),
            labels: Vec::new(),
            figures: HashMap::new(),
        })
    }

    /// Asks about these containers alone, by label; about all if there are none.
    #[must_use]
    pub fn of_containers(mut self, labels: &[String]) -> Self {
        self.containers = labels.to_vec();
        self
    }

    /// Where the ledger begins and ends.
    pub const fn extent(&self) -> &Extent {
        &self.extent
    }

    /// What every container has used of each of its quotas, in the periods that contain `at`. `ids` are all
    /// ids that a container is known by. Retired containers have no quota.
    ///
    /// # Errors
    /// When the file cannot be read, or a period cannot be computed.
    pub fn standings<'q>(
        &mut self,
        quotas: &'q Quotas,
        at: Timestamp,
        ids: &dyn Fn(&str) -> Vec<String>,
    ) -> anyhow::Result<Vec<Standing<'q>>> {
        let mut all = Vec::new();
        let day = self.begin(quotas, at, ids)?;
        for known in self.present()? {
            let container = Container { ids: ids(&known.container), name: known.name.clone(), day };
            for quota in quotas.of(&container) {
                all.push(self.standing((quotas, quota), at, &known)?);
            }
        }
        Ok(all)
    }

    /// What every container has used of each of its quotas, for the ledger to find crossings in: in the period that
    /// contains `at`, and in those from `since` on that are over. In the order of their ends.
    ///
    /// # Errors
    /// As [`Self::standings`].
    pub fn looks(
        &mut self,
        quotas: &Quotas,
        (since, at): (Timestamp, Timestamp),
        ids: &dyn Fn(&str) -> Vec<String>,
    ) -> anyhow::Result<Vec<QuotaLook>> {
        let mut periods: HashMap<usize, Vec<PeriodOf>> = HashMap::new();
        let mut all = Vec::new();
        let day = self.begin(quotas, at, ids)?;
        let container =
            |known: &KnownContainer| Container { ids: ids(&known.container), name: known.name.clone(), day };
        let present = self.present()?;
        // Of a tenant, whoever is told hears once: for the container that was there first.
        let mut oldest: HashMap<usize, (i64, String)> = HashMap::new();
        for known in present.iter().filter(|_| !quotas.tenants.is_empty()) {
            let age = (known.since.as_second(), known.container.clone());
            for quota in quotas.of(&container(known)) {
                let oldest = oldest.entry(quota.line).or_insert_with(|| age.clone());
                *oldest = age.clone().min(oldest.clone());
            }
        }
        for known in present {
            for quota in quotas.of(&container(&known)) {
                let of_quota = match periods.entry(quota.line) {
                    Entry::Occupied(found) => found.into_mut(),
                    Entry::Vacant(new) => new.insert(self.periods(quota, since, at)?),
                };
                let tells = !matches!(quota.scope, Scope::Tenant(_))
                    || oldest.get(&quota.line).is_none_or(|(_, label)| *label == known.container);
                all.extend(of_quota.iter().map(|period| self.look((quotas, quota, tells), period, &known)));
            }
        }
        all.sort_by_key(|look| look.span.end_s);
        Ok(all)
    }

    /// The containers that are asked about, and that nobody retired.
    fn present(&self) -> Result<Vec<KnownContainer>, LedgerError> {
        let mut all = self.ledger.containers()?;
        let is_asked = |label: &String| self.containers.is_empty() || self.containers.contains(label);
        all.retain(|known| known.retired.is_none() && is_asked(&known.container));
        Ok(all)
    }

    /// Begins to ask about the quotas of a file. Returns the day.
    fn begin(
        &mut self,
        quotas: &Quotas,
        at: Timestamp,
        ids: &dyn Fn(&str) -> Vec<String>,
    ) -> anyhow::Result<Option<Date>> {
        if !quotas.tenants.is_empty() {
            let id_of = |label: &str| label.split('@').next().unwrap_or(label).to_owned();
            let all = self.ledger.containers()?.into_iter();
            // Of an id that was retired, too: what it counted was its tenant's.
            self.labels =
                all.map(|known| (ids(&id_of(&known.container)), known.container)).map(swap).collect();
        }
        Ok(self.ledger.calendar().date(at.as_second()).ok())
    }

    /// What a quota counts in a span: of the container, or of all that its tenant had then.
    fn used_of(
        &mut self,
        (quotas, quota): (&Quotas, &Quota),
        span: Span,
        container: &str,
    ) -> Result<Used, String> {
        let Scope::Tenant(tenant) = &quota.scope else {
            return self.used(span, (&quota.classes, percentile_of(quota)), container);
        };
        let mut all = Used::default();
        for (label, spans) in self.spans_of(quotas, tenant, span).map_err(|error| error.to_string())? {
            for span in spans {
                let used = self.used(span, (&quota.classes, None), &label)?;
                all.incoming = all.incoming.saturating_add(used.incoming);
                all.outgoing = all.outgoing.saturating_add(used.outgoing);
            }
        }
        Ok(all)
    }

    /// When within a span which containers were a tenant's, by label. The same container may be named by several of
    /// its ids.
    fn spans_of(
        &self,
        quotas: &Quotas,
        tenant: &str,
        span: Span,
    ) -> Result<Vec<(String, Vec<Span>)>, LedgerError> {
        let mut all: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
        for one in quotas.assignments(tenant) {
            let start = |day: Date| self.ledger.date_start(day).map(Timestamp::as_second);
            let from_s = one.from.map(start).transpose()?.unwrap_or(i64::MIN).max(span.start_s);
            let until_s = one.until.map(start).transpose()?.unwrap_or(i64::MAX).min(span.end_s);
            if from_s >= until_s {
                continue;
            }
            for (label, ids) in &self.labels {
                if ids.iter().any(|id| one.containers.contains(id)) {
                    all.entry(label).or_default().push(Span { start_s: from_s, end_s: until_s });
                }
            }
        }
        Ok(all.into_iter().map(|(label, spans)| (label.to_owned(), joined(spans))).collect())
    }

    fn look(
        &mut self,
        (quotas, quota, tells): (&Quotas, &Quota, bool),
        period: &PeriodOf,
        known: &KnownContainer,
    ) -> QuotaLook {
        let PeriodOf { span, label, .. } = period.clone();
        let percentile = percentile_of(quota);
        let used = self.used_of((quotas, quota), span, &known.container);
        // Whoever is told hears of a tenant once.
        let is_told = |name: &String| {
            let found = quotas.actions.iter().find(|action| action.name == *name);
            tells || found.is_none_or(|action| matches!(action.means, Means::Command { .. }))
        };
        let actions = |percent: u16| {
            let found = quota.actions.iter().find(|(of, _)| *of == percent);
            found
                .map(|(_, names)| names.iter().filter(|name| is_told(name)).cloned().collect())
                .unwrap_or_default()
        };
        QuotaLook {
            quota: quota.name.clone(),
            container: known.container.clone(),
            span,
            label,
            moves: quota.period.moves(),
            direction: quota.direction,
            classes: quota.classes.clone(),
            is_rate: percentile.is_some(),
            is_shared: matches!(quota.scope, Scope::Tenant(_)),
            allowance: allowance_in(quota, span, self.since_s(known)),
            thresholds: quota.thresholds.iter().map(|percent| (*percent, actions(*percent))).collect(),
            used: used.ok(),
        }
    }

    /// The periods of a quota from one instant to another, the last ones if there are very many.
    fn periods(&self, quota: &Quota, since: Timestamp, at: Timestamp) -> anyhow::Result<Vec<PeriodOf>> {
        let last = self.period(quota, at)?;
        let mut from = since.max(at - (MOST_DAYS_CAUGHT_UP * 24).hours());
        let mut all = Vec::new();
        while !quota.period.moves() && from.as_second() < last.span.start_s {
            let period = self.period(quota, from)?;
            from = Timestamp::from_second(period.span.end_s.max(from.as_second() + 1))?;
            all.push(period);
        }
        all.retain(|period| period.span.end_s <= last.span.start_s);
        all.push(last);
        Ok(all)
    }

    /// What was used in periods that are over, by the number of their track. What cannot be read any more is left
    /// out.
    pub fn past(&mut self, tracks: &[PastTrack]) -> Vec<(i64, Used)> {
        let used = |past: &PastTrack| {
            Some((past.track, self.used(past.span, (&past.classes, None), &past.container).ok()?))
        };
        tracks.iter().filter_map(used).collect()
    }

    /// The period of a quota that contains an instant.
    fn period(&self, quota: &Quota, at: Timestamp) -> anyhow::Result<PeriodOf> {
        let own = self.ledger.calendar();
        let calendar = quota.period.calendar(own)?;
        let (first, next) = quota.period.dates(&calendar, calendar.date(at.as_second())?)?;
        let start = |date| match quota.period.zone {
            Some(_) => Ok(calendar.date_start(date)?),
            // Where the ledger booked it.
            None => self.ledger.date_start(date).map(Timestamp::as_second),
        };
        Ok(PeriodOf {
            span: Span { start_s: start(first)?, end_s: start(next)? },
            label: quota.period.label(own, at.as_second())?,
            zone: calendar.zone_name().to_owned(),
        })
    }

    fn standing<'q>(
        &mut self,
        (quotas, quota): (&Quotas, &'q Quota),
        at: Timestamp,
        known: &KnownContainer,
    ) -> anyhow::Result<Standing<'q>> {
        let PeriodOf { span, label, zone } = self.period(quota, at)?;
        let percentile = percentile_of(quota);
        let allowance = allowance_in(quota, span, self.since_s(known));
        let used = self.used_of((quotas, quota), span, &known.container);
        let forecast = match (&used, allowance) {
            (Ok(used), Some(allowance)) if percentile.is_none() && !quota.period.moves() => {
                self.forecast((quotas, quota), (span, allowance), *used, known)
            }
            _ => None,
        };
        Ok(Standing {
            container: known.container.clone(),
            name: known.name.clone(),
            quota,
            label,
            span,
            zone,
            allowance,
            used: used.map(|used| quota.direction.of(used)),
            forecast,
        })
    }

    /// When a container was first seen; `None` if it was there when the ledger began.
    fn since_s(&self, known: &KnownContainer) -> Option<i64> {
        let since_s = known.since.as_second();
        let begin_s = self.extent.begin.map(Timestamp::as_second)?;
        (five_minutes_of(since_s) > begin_s).then_some(since_s)
    }

    fn forecast(
        &mut self,
        (quotas, quota): (&Quotas, &Quota),
        (span, allowance): (Span, u64),
        used: Used,
        known: &KnownContainer,
    ) -> Option<Forecast> {
        let (begin_s, last_s) = (self.extent.begin?.as_second(), self.extent.last_reading?.as_second());
        let own = self.ledger.calendar();
        let first = own.date(last_s - RECENT_DAYS_S).ok()?;
        let from_s = self.ledger.date_start(first).ok()?.as_second().max(begin_s);
        let recent = Span { start_s: from_s, end_s: last_s };
        let counted = self.used_of((quotas, quota), recent, &known.container).ok()?;
        let since_s = match quota.scope {
            Scope::Tenant(_) => from_s,
            _ => from_s.max(known.since.as_second()),
        };
        let seconds = (last_s - since_s).max(0).unsigned_abs();
        forecast((quota.direction, allowance), span, last_s, (used, Recent { used: counted, seconds }))
    }

    /// What a container has used in a span.
    fn used(
        &mut self,
        span: Span,
        (classes, percentile): (&[u8], Option<f64>),
        container: &str,
    ) -> Result<Used, String> {
        let question = (span, classes.to_vec(), percentile.map(f64::to_bits));
        if !self.figures.contains_key(&question) {
            let answer = self.ask(span, classes, percentile).map_err(|error| error.to_string());
            self.figures.insert(question.clone(), answer);
        }
        match &self.figures[&question] {
            Ok(figures) => Ok(figures.get(container).copied().unwrap_or_default()),
            Err(error) => Err(error.clone()),
        }
    }

    fn ask(&self, span: Span, classes: &[u8], percentile: Option<f64>) -> Result<Figures, LedgerError> {
        let last_s = self.extent.last_reading.map(Timestamp::as_second);
        if last_s.is_none_or(|last_s| last_s < span.start_s) {
            // Nothing is recorded since it began.
            return Ok(Figures::new());
        }
        let query = ReportQuery {
            // All that a tenant has are asked about at once.
            containers: if self.labels.is_empty() { self.containers.clone() } else { Vec::new() },
            classes: classes.to_vec(),
            from: Some(Timestamp::from_second(span.start_s)?),
            to: Some(Timestamp::from_second(span.end_s)?),
            percentile,
            ..ReportQuery::default()
        };
        let mut figures = Figures::new();
        for row in self.ledger.report(&query)?.rows {
            // Class 0 counts only where it is named.
            if !row.billed && !classes.contains(&0) {
                continue;
            }
            let of_row = used_by(&row, percentile.is_some());
            let sum = figures.entry(row.container).or_default();
            sum.incoming = sum.incoming.saturating_add(of_row.incoming);
            sum.outgoing = sum.outgoing.saturating_add(of_row.outgoing);
            sum.together = of_row.together;
        }
        Ok(figures)
    }
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// Spans without what they have twice, in their order.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.start_s);
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start_s <= last.end_s => last.end_s = last.end_s.max(span.end_s),
            _ => joined.push(span),
        }
    }
    joined
}

/// What a row counts: a rate, or the bytes to bill with the corrections of closed periods. Corrections below
/// nothing are nothing.
fn used_by(row: &ReportRow, is_rate: bool) -> Used {
    if is_rate {
        let rates = row.percentile.unwrap_or_default();
        return Used {
            incoming: rates.incoming.unwrap_or(0),
            outgoing: rates.outgoing.unwrap_or(0),
            together: rates.total,
        };
    }
    match &row.billing {
        Some(billing) => {
            let bytes = |volume: Option<SignedVolume>| {
                volume.map_or(0, |volume| u64::try_from(volume.bytes).unwrap_or(0))
            };
            let SignedFigures { incoming, outgoing, .. } = billing.to_bill;
            Used { incoming: bytes(incoming), outgoing: bytes(outgoing), together: None }
        }
        None => Used {
            incoming: row.figures.incoming.map_or(0, |volume| volume.bytes),
            outgoing: row.figures.outgoing.map_or(0, |volume| volume.bytes),
            together: None,
        },
    }
}
