//! `trafctl quota set` and `trafctl quota remove`: change the file as a person would.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use clap::Args;
use traffic_model::ContainerId;
use traffic_quota::{
    Direction, FileMistake, NamePattern, Quotas, Scope,
    edit::{self, Change, NotChanged, quoted},
};

use super::{REFUSED, refused};
use crate::{
    cli::{
        Done, Global,
        format::parse_class,
        output::{print, print_error},
    },
    files,
    state_file::{self, StateLock},
};

/// Set a quota in the file, or some of its values
///
/// Values that are not given stay as they are; a quota that the file does not have is added at its end.
/// Comments and all other quotas stay. A limit replaces another kind of limit. If the result would have a
/// mistake, nothing is changed, and the status is 2.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl quota set traffic --default --allowance 1TB\n  \
    trafctl quota set traffic --container 101 --allowance 5TB --direction out --billing-day 15\n  \
    trafctl quota set traffic --container 7 --unlimited\n  \
    trafctl quota set rate --pattern 'shop-*' --commit 100Mbit/s --percentile 95")]
pub(super) struct SetOptions {
    #[command(flatten)]
    of: Of,
    /// Bytes in each period, such as 1.5TB
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["commit", "unlimited"])]
    allowance: Option<String>,
    /// Rate at a percentile, such as 100Mbit/s
    #[arg(long, value_name = "RATE", conflicts_with = "unlimited")]
    commit: Option<String>,
    /// Percentile of a commit [default: 95]
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
    /// No limit, whatever the default says
    #[arg(long)]
    unlimited: bool,
    /// What counts [default: sum; of a commit: larger]
    #[arg(long, value_name = "DIRECTION", value_parser = Direction::ALL.map(|(_, name)| name))]
    direction: Option<String>,
    /// Classes that count, separated by commas [default: all that are billed]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = parse_class)]
    classes: Vec<u8>,
    /// Period: month, week, day, or such as "30 days" [default: month]
    #[arg(long, value_name = "PERIOD")]
    period: Option<String>,
    /// Day on which months begin [default: the ledger's]
    #[arg(long, value_name = "DAY")]
    billing_day: Option<u8>,
    /// Time zone of the period [default: the ledger's]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// What a container has that is new in the period [default: whole]
    #[arg(long, value_name = "PART", value_parser = ["whole", "share"])]
    first_period: Option<String>,
    /// Percents that are shown once they are reached, separated by commas [default: 80%,100%]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = traffic_quota::parse_percent)]
    thresholds: Vec<u16>,
}

/// Remove a quota from the file
///
/// Prints the removed lines. Comments before the quota and all other quotas stay.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl quota remove traffic --container 101\n  \
    trafctl quota remove rate --pattern 'shop-*'")]
pub(super) struct RemoveOptions {
    #[command(flatten)]
    of: Of,
}

/// Which quota.
#[derive(Debug, Args)]
struct Of {
    /// Name of the quota
    #[arg(value_name = "NAME")]
    name: String,
    /// The quota for the container with this id
    #[arg(long, value_name = "ID", value_parser = ContainerId::new,
        required_unless_present_any = ["tenant", "pattern", "default"],
        conflicts_with_all = ["tenant", "pattern", "default"])]
    container: Option<ContainerId>,
    /// The quota that the containers of this tenant have together
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["pattern", "default"])]
    tenant: Option<String>,
    /// The quota for containers with a name, or an id, like this: * is any text, ? any character
    #[arg(long, value_name = "PATTERN", conflicts_with = "default")]
    pattern: Option<String>,
    /// The quota for all that have no other of this name
    #[arg(long)]
    default: bool,
}

impl Of {
    fn scope(&self) -> Scope {
        match (&self.container, &self.tenant, &self.pattern) {
            (Some(id), ..) => Scope::Container(id.to_string()),
            (None, Some(tenant), _) => Scope::Tenant(tenant.clone()),
            (None, None, Some(pattern)) => Scope::Pattern(NamePattern(pattern.clone())),
            (None, None, None) => Scope::Default,
        }
    }
}

impl SetOptions {
    fn change(&self) -> Change {
        let list = |values: Vec<String>| (!values.is_empty()).then(|| format!("[{}]", values.join(", ")));
        let text = |value: &Option<String>| value.as_deref().map(quoted);
        let values = [
            ("allowance", text(&self.allowance)),
            ("commit", text(&self.commit)),
            ("percentile", self.percentile.map(|percent| percent.to_string())),
            ("unlimited", self.unlimited.then(|| "true".to_owned())),
            ("direction", text(&self.direction)),
            ("classes", list(self.classes.iter().map(ToString::to_string).collect())),
            ("period", text(&self.period)),
            ("billing_day", self.billing_day.map(|day| day.to_string())),
            ("time_zone", text(&self.time_zone)),
            ("first_period", text(&self.first_period)),
            (
                "thresholds",
                list(self.thresholds.iter().map(|percent| quoted(&format!("{percent}%"))).collect()),
            ),
        ];
        let values = values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Change { name: self.of.name.clone(), scope: self.of.scope(), values }
    }
}

pub(super) fn set(global: &Global, options: &SetOptions) -> anyhow::Result<Done> {
    let change = options.change();
    change_file(global, |text| {
        let new = edit::set(text, &change)?;
        let was = if new == text { "is already so" } else { "is set" };
        Ok((format!("quota {} for {} {was}\n", change.name, change.scope.text()), new))
    })
}

pub(super) fn remove(global: &Global, options: &RemoveOptions) -> anyhow::Result<Done> {
    let (name, scope) = (&options.of.name, options.of.scope());
    change_file(global, |text| {
        let (new, removed) = edit::remove(text, name, &scope)?;
        Ok((format!("removed:\n{}\n", removed.trim_end()), new))
    })
}

/// Changes the file under a lock. `edit` returns what to print, and the new text.
fn change_file(
    global: &Global,
    edit: impl FnOnce(&str) -> Result<(String, String), NotChanged>,
) -> anyhow::Result<Done> {
    let path = global.quota_file();
    // Both must see each other's change, also where the file is reached by another link.
    let _lock = StateLock::take(&global.state_dir)?;
    let there = path.is_symlink() || path.exists();
    // Whoever manages the file by a link keeps the link.
    let path = if there { fs::canonicalize(&path) } else { Ok(path.clone()) }
        .with_context(|| format!("cannot find {}", path.display()))?;
    let cannot = || format!("cannot read the quotas {}", path.display());
    let text = if there {
        files::read_text(&path, files::MOST_CONFIG_BYTES).with_context(cannot)?
    } else {
        String::new()
    };
    match edit(&text) {
        Ok((message, new)) => {
            if new != text {
                write(&path, &new)?;
            }
            print(&message)?;
            Ok(Done::Success)
        }
        Err(NotChanged::Mistakes(mistakes)) => Ok(refused(&path, &mistakes)),
        Err(not_changed) => {
            print_error(&anyhow!("cannot change {}: {}", path.display(), reason(&not_changed)));
            Ok(Done::Status(REFUSED))
        }
    }
}

fn reason(not_changed: &NotChanged) -> String {
    match not_changed {
        NotChanged::Refused(message) => message.clone(),
        NotChanged::Missing => "it has no such quota; `trafctl quota list` lists those it has".to_owned(),
        NotChanged::Form => {
            "the quota is not written as a [[quota]] with a key in each line; change it by hand".to_owned()
        }
        NotChanged::Mistakes(mistakes) => {
            mistakes.first().map(|FileMistake { message, .. }| message.clone()).unwrap_or_default()
        }
    }
}

/// Replaces the file as a whole, and reads it again.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let former = fs::metadata(path).ok();
    state_file::replace(path, text.as_bytes(), files::MOST_CONFIG_BYTES)?;
    if let Some(former) = former {
        fs::set_permissions(path, former.permissions())
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    }
    let written = files::read_text(path, files::MOST_CONFIG_BYTES)
        .with_context(|| format!("cannot read {} again", path.display()))?;
    anyhow::ensure!(
        written == text && Quotas::parse(&written).is_ok(),
        "{} was changed by somebody else meanwhile; look at it, and try again",
        path.display()
    );
    Ok(())
}
