//! What is used of quotas as a document of the API: the same as `trafctl quota show --format json`.

use std::{fmt, fs, io, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::Timestamp;
use traffic_ledger::{Ledger, LedgerError};
use traffic_quota::Quotas;

use super::{parse_time, quotas::Asker};
use crate::{
    files,
    quota_actions::{self, Journal},
    render::quota::{Shown, shown, whole_second},
};

/// All ids that a container is known by, by its label in the ledger.
pub type IdsOf = Box<dyn Fn(&str) -> Vec<String>>;

/// Where the quotas of a ledger are, and who their containers are.
pub struct QuotaFiles {
    /// The file with the quotas; need not exist.
    pub file: PathBuf,
    /// The directory with what became of their actions.
    pub state_dir: PathBuf,
    /// Reads who the containers are.
    pub ids: Box<dyn Fn() -> IdsOf + Send + Sync>,
}

impl fmt::Debug for QuotaFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaFiles").field("file", &self.file).finish_non_exhaustive()
    }
}

impl QuotaFiles {
    /// The quotas of the file; none if it does not exist.
    ///
    /// # Errors
    /// When it cannot be read, or has a mistake.
    pub fn read(&self) -> anyhow::Result<Quotas> {
        let Some(text) = self.text()? else { return Ok(Quotas::default()) };
        Quotas::parse(&text).map_err(|mistakes| match mistakes.first() {
            Some(first) => {
                anyhow!("{}:{}:{}: {}", self.file.display(), first.line, first.column, first.message)
            }
            None => anyhow!("{} has a mistake", self.file.display()),
        })
    }

    fn text(&self) -> anyhow::Result<Option<String>> {
        match files::read_text(&self.file, files::MOST_CONFIG_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some).with_context(|| format!("cannot read the quotas {}", self.file.display())),
        }
    }

    /// What a document about quotas changes with, besides the ledger.
    pub fn revision(&self) -> String {
        let journal = fs::metadata(Journal::path(&self.state_dir));
        let journal = journal.ok().map(|file| (file.len(), file.modified().ok()));
        format!("{:?} {journal:?}", self.text().ok().flatten())
    }
}

/// Which quotas are shown
#[derive(Debug, Args)]
pub struct QuotaOptions {
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    pub containers: Vec<String>,
    /// Only quotas of which so much is used, such as 80%
    #[arg(long, value_name = "PERCENT", value_parser = traffic_quota::parse_percent)]
    over: Option<u16>,
    /// The periods that contain this time, such as 2026-10-31 [default: the last reading]
    #[arg(long, value_name = "T")]
    at: Option<String>,
}

impl QuotaOptions {
    /// The time that is asked about; `None` if the ledger has none.
    ///
    /// # Errors
    /// When it cannot be read as a time.
    pub fn time(&self, ledger: &Ledger) -> anyhow::Result<Option<Timestamp>> {
        match &self.at {
            Some(text) => parse_time(text, ledger.calendar().zone()).context("cannot use --at").map(Some),
            None => Ok(ledger.extent()?.last_reading),
        }
    }

    /// The document about these containers, as the ledger knows them, at a time; about all if there are none.
    ///
    /// # Errors
    /// When the file has a mistake, a container is unknown, or the ledger cannot be read.
    pub fn answer(
        &self,
        ledger: &Ledger,
        files: &QuotaFiles,
        (wanted, at): (&[String], Option<Timestamp>),
    ) -> anyhow::Result<String> {
        let quotas = files.read()?;
        for container in wanted {
            if !ledger.knows_container(container)? && !ledger.has_label(container)? {
                return Err(LedgerError::NoSuchContainer(container.clone()).into());
            }
        }
        let mut asker = Asker::new(ledger)?.of_containers(wanted);
        let last_reading = asker.extent().last_reading;
        let mut standings = match at.filter(|_| !quotas.quotas.is_empty()) {
            Some(at) => asker.standings(&quotas, at, &(files.ids)())?,
            None => Vec::new(),
        };
        standings.retain(|standing| self.over.is_none_or(|percent| standing.is_over(percent)));
        let document = Shown {
            file: &files.file.display().to_string(),
            exact: true,
            over: self.over,
            last_reading: last_reading.map(whole_second),
            zone: ledger.calendar().zone_name(),
            failed_actions: quota_actions::failed(ledger, &files.state_dir)?,
            standings: &standings,
        };
        shown(&document, crate::render::ledger::Format::Json)
    }
}
