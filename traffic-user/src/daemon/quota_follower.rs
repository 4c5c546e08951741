//! Follows the file with the quotas, and has the ledger find what drains cannot find by themselves: quotas
//! and containers that are new, periods that begin and end, and figures that were corrected.
//!
//! Nothing waits for this. Without the file there are no quotas. A file with a mistake leaves those in force
//! that it had before, and is a problem that `trafctl status` shows.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use traffic_ledger::{Ledger, QuotaState};
use traffic_model::{ContainerId, calendar::five_minutes_of};
use traffic_quota::{Limit, Quotas, Scope};

use super::ledger_handle::LedgerHandle;
use crate::{
    files,
    health::{Components, Part},
    ownership::ids_in_ledger,
    queries::quotas::Asker,
    quota_actions::LastLooks,
    time,
};

/// How long the file must be missing until it means that there are no quotas: an editor may remove it before
/// it writes it again.
const MISSING_FOR: Duration = Duration::from_mins(1);
/// How long the services of quotas may take to start after this process.
const SERVICES_START_IN: Duration = Duration::from_mins(10);
/// How often rates at a percentile are looked at, in seconds. No drain can add to them.
const RATES_EVERY_S: i64 = 3600;
/// How often figures may change while they are looked at, before that is left to the next drain.
const ATTEMPTS: usize = 3;

/// The quotas in force, and what was followed last.
#[derive(Debug)]
pub(super) struct QuotaFollower {
    file: PathBuf,
    state_dir: PathBuf,
    began: Instant,
    /// The text that was read last, and whether it has a mistake.
    text: Option<(String, Option<String>)>,
    /// The last quotas without a mistake.
    quotas: Option<Quotas>,
    missing_since: Option<Instant>,
    followed: Option<Followed>,
}

/// What the tracks were made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followed {
    /// The change number of the last change of a container or a name.
    containers: i64,
    /// The hour of the last look, if there are rates.
    hour: Option<i64>,
    /// The five minutes of the last look, if there are quotas of tenants.
    five_minutes: Option<i64>,
}

impl QuotaFollower {
    pub(super) fn new(file: PathBuf, state_dir: &Path) -> Self {
        let (state_dir, began) = (state_dir.to_owned(), Instant::now());
        Self { file, state_dir, began, text: None, quotas: None, missing_since: None, followed: None }
    }

    /// The file with the quotas.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// To be called after each drain. A failure is noted, and tried again after the next one.
    pub(super) fn follow(
        &mut self,
        ledger: &mut LedgerHandle,
        components: &Components,
        ids: &dyn Fn(&ContainerId) -> Vec<ContainerId>,
    ) {
        let Some(ledger) = ledger.opened() else { return };
        let followed = self.read().and_then(|()| self.bring_up_to_date(ledger, ids));
        let mistake = self.text.as_ref().and_then(|(_, mistake)| mistake.as_deref());
        match (followed, mistake) {
            (Err(error), _) => components.failed(Part::Quotas, &error),
            // A file with a mistake is a problem, whatever else succeeds.
            (Ok(_), Some(mistake)) => components.failed_because(Part::Quotas, mistake),
            (Ok(has_quotas), None) => match (self.missing_service(), has_quotas) {
                (Some(problem), _) => components.failed_because(Part::Quotas, &problem),
                (None, true) => components.works(Part::Quotas),
                (None, false) => components.disabled(Part::Quotas),
            },
        }
    }

    /// What nobody does although the file counts on it.
    fn missing_service(&self) -> Option<String> {
        let quotas = self.quotas.as_ref().filter(|_| self.began.elapsed() >= SERVICES_START_IN)?;
        let has_actions = quotas.quotas.iter().any(|quota| !quota.actions.is_empty());
        let looks = LastLooks::read(&self.state_dir);
        let now_s = time::now_or_end().as_second();
        let problem = looks.problem((has_actions, !quotas.alerts.is_empty()), now_s)?;
        Some(format!("{}: {problem}", self.file.display()))
    }

    /// Reads the file. What it had stays in force after a mistake.
    fn read(&mut self) -> anyhow::Result<()> {
        let text = match files::read_text(&self.file, files::MOST_CONFIG_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.file.is_symlink() => {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= MISSING_FOR {
                    self.take(String::new());
                }
                return Ok(());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the quotas {}", self.file.display()));
            }
        };
        self.missing_since = None;
        self.take(text);
        Ok(())
    }

    fn take(&mut self, text: String) {
        if self.text.as_ref().is_some_and(|(known, _)| *known == text) {
            return;
        }
        let mistake = match Quotas::parse(&text) {
            Ok(quotas) => {
                self.quotas = Some(quotas);
                self.followed = None;
                None
            }
            Err(mistakes) => mistakes.first().map(|first| {
                format!(
                    "{}:{}:{}: {}; the quotas from before stay in force until it is corrected",
                    self.file.display(),
                    first.line,
                    first.column,
                    first.message
                )
            }),
        };
        self.text = Some((text, mistake));
    }

    /// Has the ledger follow, if anything calls for it. Returns whether there are quotas.
    fn bring_up_to_date(
        &mut self,
        ledger: &mut Ledger,
        ids: &dyn Fn(&ContainerId) -> Vec<ContainerId>,
    ) -> anyhow::Result<bool> {
        let Some(quotas) = &self.quotas else { return Ok(false) };
        let ids = |container: &str| ids_in_ledger(container, ids);
        let has_tenants = quotas.quotas.iter().any(|quota| matches!(quota.scope, Scope::Tenant(_)));
        let has_rates = quotas.quotas.iter().any(|quota| matches!(quota.limit, Limit::Rate { .. }));
        for _ in 0..ATTEMPTS {
            let state = ledger.quota_state().context("cannot read what is used of quotas")?;
            if quotas.quotas.is_empty() && state.open == 0 {
                return Ok(false);
            }
            let mut asker = Asker::new(ledger)?;
            let Some(at) = asker.extent().last_reading else { return Ok(true) };
            let followed = Followed {
                containers: state.containers,
                hour: has_rates.then(|| at.as_second().div_euclid(RATES_EVERY_S)),
                five_minutes: has_tenants.then(|| five_minutes_of(at.as_second())),
            };
            if self.followed == Some(followed) && !is_due(&state, at) {
                return Ok(true);
            }
            let looks = asker
                .looks(quotas, (since(&state, at), at), &ids)
                .context("cannot compute what is used of quotas")?;
            let past = asker.past(&state.past);
            if ledger.follow_quotas(&state, &looks, &past).context("cannot write what is used of quotas")? {
                self.followed = Some(followed);
                return Ok(true);
            }
        }
        bail!("the ledger was changed {ATTEMPTS} times while it was read for quotas")
    }
}

/// From when on periods are looked at. A clock that was set back has nothing to catch up.
fn since(state: &QuotaState, at: Timestamp) -> Timestamp {
    let followed = state.followed_s.and_then(|followed_s| Timestamp::from_second(followed_s).ok());
    followed.unwrap_or(at).min(at)
}

/// Whether figures were changed otherwise than by drains, or a period has ended.
fn is_due(state: &QuotaState, at: Timestamp) -> bool {
    !state.is_current || state.next_end_s.is_some_and(|end_s| end_s <= at.as_second())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use traffic_ledger::testing::{EVERY_MINUTE, File, NOON, Node, ledger};

    use super::*;

    struct Lab {
        file: File,
        node: Node,
        follower: QuotaFollower,
    }

    impl Lab {
        fn new() -> Self {
            let file = ledger();
            let follower = QuotaFollower::new(file.dir.path().join("quotas.toml"), file.dir.path());
            Self { file, node: Node::new(NOON), follower }
        }

        fn write(&self, text: &str) {
            fs::write(self.file.dir.path().join("quotas.toml"), text).unwrap();
        }

        /// Counts some bytes, drains and follows. Returns whether there are quotas.
        fn drain(&mut self, bytes: u64) -> bool {
            self.node.traffic("101", 1, [1, bytes, 0, 0]).pass(60);
            self.file.ledger.drain(&self.node.snapshot(), EVERY_MINUTE).unwrap();
            self.follower.read().unwrap();
            self.follower.bring_up_to_date(&mut self.file.ledger, &|id| vec![id.clone()]).unwrap()
        }

        fn crossed(&self) -> Vec<String> {
            let all = self.file.ledger.quota_crossings(0, 100).unwrap();
            all.into_iter().map(|one| format!("{}% {:?} {}", one.percent, one.change, one.used)).collect()
        }
    }

    const QUOTAS: &str = "[[quota]]\nname = 'a'\ndefault = true\nallowance = '1kB'\n";

    #[test]
    fn a_changed_file_counts_after_the_next_drain_and_one_with_a_mistake_changes_nothing() {
        let mut lab = Lab::new();
        assert!(!lab.drain(500));
        lab.write(QUOTAS);
        assert!(lab.drain(100));
        assert_eq!(lab.crossed(), [""; 0]);
        lab.drain(200);
        assert_eq!(lab.crossed(), ["80% Reached 800"], "with what was there before");
        lab.write("[[quota]]\nname = 'a'\n");
        assert!(lab.drain(200));
        assert!(
            lab.follower.text.as_ref().unwrap().1.as_ref().unwrap().contains("quotas.toml:1:1: the quota")
        );
        assert_eq!(lab.crossed()[1..], ["100% Reached 1000"], "drains go on with what was in force");
        lab.write(&QUOTAS.replace("1kB", "10kB"));
        lab.drain(1);
        assert_eq!(lab.crossed()[2..], ["100% Undone 1001", "80% Undone 1001"]);
    }

    #[test]
    fn the_containers_of_a_tenant_share_an_allowance_and_one_of_them_is_told_of() {
        let mut lab = Lab::new();
        let act = "[[action]]\nname = 'stop'\ncommand = ['/bin/true']\n\
                   [[action]]\nname = 'tell'\nmail = 'noc'\n";
        let tenant = "[[tenant]]\nname = 'acme'\ncontainers = ['102', '101']\n";
        let quota = "[[quota]]\nname = 'a'\ntenant = 'acme'\nallowance = '1kB'\n\
                     actions = { '100%' = ['stop', 'tell'] }\n";
        lab.write(&format!("{act}{tenant}{quota}"));
        lab.node.traffic("102", 1, [1, 450, 0, 0]).traffic("103", 1, [1, 9000, 0, 0]);
        lab.drain(450);
        let all = |lab: &Lab| {
            let all = lab.file.ledger.quota_crossings(0, 100).unwrap();
            let text = |one: traffic_ledger::QuotaCrossing| {
                format!(
                    "{} {}% {:?} {} {}",
                    one.container,
                    one.percent,
                    one.change,
                    one.used,
                    one.actions.join(",")
                )
            };
            all.into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(all(&lab), ["101 80% Reached 900 ", "102 80% Reached 900 "]);
        // Drains alone do not know of it: the figures are those of the next look.
        lab.drain(100);
        assert_eq!(all(&lab).len(), 2);
        lab.node.pass(300);
        lab.drain(1);
        assert_eq!(all(&lab)[2..], ["101 100% Reached 1001 stop,tell", "102 100% Reached 1001 stop"]);
        // From tomorrow on, one of them is another's. What it had until then stays.
        let day = NOON / 86_400 * 86_400 + 86_400;
        let day = Timestamp::from_second(day).unwrap().to_string()[..10].to_owned();
        let until = format!("[[tenant]]\nname = 'acme'\ncontainers = ['102']\nuntil = '{day}'\n");
        let tenant = tenant.replace("'102', ", "");
        lab.write(&format!("{act}{tenant}{until}{quota}"));
        lab.drain(1);
        assert_eq!(all(&lab).len(), 4, "nothing changed until then");
        lab.node.pass(86_400).traffic("102", 1, [1, 5000, 0, 0]);
        lab.drain(1);
        assert_eq!(all(&lab)[4..], ["102 100% Undone 0 stop", "102 80% Undone 0 "]);
        let quotas = Quotas::parse(&format!("{act}{tenant}{until}{quota}")).unwrap();
        let mut asker = Asker::new(&lab.file.ledger).unwrap();
        let at = asker.extent().last_reading.unwrap();
        let standings = asker.standings(&quotas, at, &|label| vec![label.to_owned()]).unwrap();
        let used: Vec<_> = standings.iter().map(|one| (one.container.as_str(), one.used.clone())).collect();
        assert_eq!(used, [("101", Ok(1003))], "450 of both until then, and what 101 had since");
    }

    #[test]
    fn actions_that_nobody_runs_are_a_problem_some_time_after_the_start() {
        let mut lab = Lab::new();
        lab.write(QUOTAS);
        lab.drain(1);
        lab.follower.began = Instant::now().checked_sub(SERVICES_START_IN).unwrap();
        assert_eq!(lab.follower.missing_service(), None, "it has none");
        let act = "[[action]]\nname = 'act'\ncommand = ['/bin/true']\n";
        lab.write(&format!("{act}{QUOTAS}actions = {{ '80%' = ['act'] }}\n"));
        lab.drain(1);
        let problem = lab.follower.missing_service().unwrap();
        assert!(problem.contains("quotas.toml: nothing runs its actions"), "{problem}");
        lab.follower.began = Instant::now();
        assert_eq!(lab.follower.missing_service(), None, "they may be about to start");
    }

    #[test]
    fn a_file_that_is_missing_for_a_moment_undoes_nothing() {
        let mut lab = Lab::new();
        lab.write(QUOTAS);
        lab.drain(900);
        fs::remove_file(lab.file.dir.path().join("quotas.toml")).unwrap();
        assert!(lab.drain(1));
        // Also where the daemon starts while it is missing.
        let dir = lab.file.dir.path();
        lab.follower = QuotaFollower::new(dir.join("quotas.toml"), dir);
        assert!(!lab.drain(99));
        assert_eq!(lab.crossed(), ["80% Reached 900", "100% Reached 1000"]);
        lab.follower.missing_since = Instant::now().checked_sub(MISSING_FOR);
        assert!(lab.drain(1), "there was one until now");
        assert_eq!(lab.crossed()[2..], ["100% Undone 0", "80% Undone 0"]);
        assert!(!lab.drain(1));
    }

    #[test]
    fn a_new_container_and_a_new_month_have_their_quota_at_once() {
        let mut lab = Lab::new();
        lab.write(QUOTAS);
        lab.drain(1);
        lab.node.traffic("102", 1, [1, 800, 0, 0]);
        lab.drain(1);
        assert_eq!(lab.crossed(), ["80% Reached 800"]);
        lab.node.pass(21 * 86_400).traffic("102", 1, [1, 900, 0, 0]);
        lab.drain(1);
        assert_eq!(lab.crossed()[1..], ["80% Ended 800", "80% Reached 900"]);
    }
}
