//! `trafctl classes shadow`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};

use crate::{
    class_source::{
        self, Wanted, Word,
        shadow::{self, Kept, UNCHANGED},
    },
    cli::{Done, Global, format::SheetFormat, output::print, progress::Progress},
    config::Config,
    kernel::{load, shadow as kernel_shadow, tables, tables::LoadLock},
    privileges,
    render::shadow::{self as render, Report},
    time,
};

/// Count under another class file beside the one in force, on the same packets, without billing
///
/// The shadow begins at 0 and counts from the next packet on; what is billed stays as it is. The report shows what
/// each container would be billed, and which lines make the difference. If another table is put in force, or
/// limits are raised, or after a reboot, the shadow begins anew, and the report says since when and why.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_long_help = "Examples:\n  \
        trafctl classes shadow new_classes\n  \
        trafctl classes shadow --report\n  \
        trafctl classes shadow --report --format json\n  \
        trafctl classes shadow --promote\n  \
        trafctl classes shadow --drop         show what would be lost\n  \
        trafctl classes shadow --drop --yes")]
pub(super) struct ShadowOptions {
    /// Class file to count under; - is standard input
    #[arg(value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Show what the shadow has counted, and how that differs from what is billed
    #[arg(long, group = "what")]
    report: bool,
    /// Put the content that was shadowed in force between two packets, as `classes load` does, and end the shadow
    #[arg(long, group = "what")]
    promote: bool,
    /// End the shadow; what it has counted is lost
    #[arg(long, group = "what")]
    drop: bool,
    /// End a shadow although what it has counted is lost, or promote a file that is held
    ///
    /// Without --yes, what would be lost is only shown, with status 1.
    #[arg(long)]
    yes: bool,
    /// Output format of the report
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) fn run(global: &Global, options: &ShadowOptions) -> anyhow::Result<Done> {
    let config = global.config()?;
    if options.report {
        return report(global, &config, options.format);
    }
    privileges::require()?;
    if options.promote {
        promote(global, &config, options.yes)
    } else if options.drop {
        drop_shadow(global, options.yes)
    } else if let Some(file) = &options.file {
        begin(global, &config, file, options.yes)
    } else {
        bail!("name a class file, or give --report, --promote or --drop");
    }
}

fn begin(global: &Global, config: &Config, file: &Path, yes: bool) -> anyhow::Result<Done> {
    let loaded =
        class_source::compiled(config, Wanted::Named(file, config.class_order)).context(UNCHANGED)?;
    loaded.log_warnings();
    let bpffs = global.pinned();
    let maps = load::open(&bpffs).context(UNCHANGED)?;
    if !yes && kernel_shadow::is_on(&maps)? {
        let lost = lost(global);
        print(&format!(
            "would begin a shadow of {} and end this one, whose figures are lost:\n{lost}nothing was changed; repeat the \
             command with --yes to do it\n",
            file.display()
        ))?;
        return Ok(Done::ProblemsFound);
    }
    drop(maps);
    let loading = LoadLock::take(&bpffs).context(UNCHANGED)?;
    let progress = Progress::start("building the shadow class table");
    let begun =
        shadow::begin((&bpffs, &global.state_dir), &loading, &loaded, &|done, of| progress.set(done, of));
    drop(progress);
    begun?;
    print(&format!("{} counts beside the table in force from now on\n", file.display()))?;
    Ok(Done::Success)
}

fn report(global: &Global, config: &Config, format: SheetFormat) -> anyhow::Result<Done> {
    let names = class_source::class_names(config, &global.state_dir);
    print(&render::report(&read(global, config)?, format.into(), &names)?)?;
    Ok(Done::Success)
}

/// Reads the shadow.
fn read(global: &Global, config: &Config) -> anyhow::Result<Report> {
    let maps = load::open(&global.pinned())?;
    let (shadow, counters, kept) = shadow::read(&maps, &global.state_dir)?;
    // The lines only explain the figures, which are shown without them.
    let changes = kept.as_ref().and_then(|kept| changes(global, &maps, kept)).unwrap_or_default();
    Ok(Report {
        node: config.node.clone(),
        time: time::now_or_end(),
        record: *shadow.record(),
        file_changed: kept.as_ref().and_then(Kept::file_changed),
        kept,
        counters,
        changes,
    })
}

fn changes(global: &Global, maps: &crate::kernel::maps::Maps, kept: &Kept) -> Option<render::Changes> {
    let read = || {
        let loaded = kept.loaded(&global.state_dir)?;
        anyhow::Ok(traffic_classes::changed_lines(&tables::in_force(maps)?, &loaded.table))
    };
    match read() {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!("the lines that make the difference are not shown: {error:#}");
            None
        }
    }
}

fn promote(global: &Global, config: &Config, yes: bool) -> anyhow::Result<Done> {
    let maps = load::open(&global.pinned())?;
    let (shadow, kept) = shadow::open(&maps, &global.state_dir)?;
    let kept = kept.context(
        "the content of the shadow class table is not kept any more; load its file by `trafctl classes load`",
    )?;
    let loaded = kept.loaded(&global.state_dir)?;
    if loaded.table.hash() != shadow.record().shadow_hash {
        bail!(
            "this trafctl reads the file in another way than the one that began the shadow; begin it again by `trafctl \
             classes shadow {}`",
            kept.name()
        );
    }
    if kept.file_changed() == Some(true) {
        tracing::warn!("{} has changed since; what was shadowed is put in force", kept.name());
    }
    let word = if yes { Word::Given } else { Word::None };
    print(&super::put_in_force(global, config, loaded, word, super::AfterLoad::EndShadow)?)?;
    Ok(Done::Success)
}

fn drop_shadow(global: &Global, yes: bool) -> anyhow::Result<Done> {
    let bpffs = global.pinned();
    // A record that cannot be read is one as well, and so is what an interruption has left.
    let is_wanted = !matches!(shadow::kept(&global.state_dir), Ok(None));
    let is_on = match load::open(&bpffs) {
        Ok(maps) => kernel_shadow::is_on(&maps)?,
        Err(error) if load::is_lost(&error) => false,
        Err(error) => return Err(error),
    };
    if !is_wanted && !is_on && !kernel_shadow::has_maps(&bpffs)? {
        bail!("there is no shadow class table");
    }
    if !yes {
        print(&format!(
            "would end this shadow, whose figures are lost:\n{}nothing was changed; repeat the command with --yes to do \
             it\n",
            lost(global)
        ))?;
        return Ok(Done::ProblemsFound);
    }
    shadow::end_waiting(&bpffs, &global.state_dir)?;
    print("the shadow class table has ended\n")?;
    Ok(Done::Success)
}

/// What would be lost, in few lines.
fn lost(global: &Global) -> String {
    let maps = load::open(&global.pinned()).ok();
    let counted = maps.and_then(|maps| kernel_shadow::read(&maps).transpose());
    let kept = shadow::kept(&global.state_dir).ok().flatten();
    let of = |kept: &&Kept| match &counted {
        Some(Ok((shadow, _))) => kept.is_of(shadow.record()),
        _ => true,
    };
    let name =
        kept.as_ref().filter(of).map_or_else(|| "a file that is not known any more".to_owned(), Kept::name);
    match &counted {
        Some(Ok((shadow, counters))) => render::lost(&name, Some((shadow.record(), &counters[..]))),
        Some(Err(error)) => format!("  of {name}, whose figures cannot be read: {error:#}\n"),
        None => render::lost(&name, None),
    }
}
