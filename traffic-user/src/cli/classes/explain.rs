//! `trafctl classes explain`

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use traffic_classes::{ClassFile, ClassOrder, ExplainContext};
use traffic_model::notation::parse_network;

use crate::{
    class_source::{self, Known},
    cli::{Done, Format, Global, output::print},
    config::Config,
    kernel::{load, tables},
    render::json,
};

/// Explain which class addresses and prefixes have, and which line decides
///
/// Answers from the table in force, and says when the configured file differs from it. For an address, also
/// lists the other matching lines and why they do not decide. For a prefix, lists its parts with class,
/// deciding line and share; the largest parts come first. While the configured file cannot be used, the
/// status is 1.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  \
    trafctl classes explain 10.10.16.7\n  \
    trafctl classes explain 10.0.0.0/8 2001:db8::1\n  \
    trafctl classes explain 2001:db8::1 --file new_classes")]
pub(super) struct ExplainOptions {
    /// Addresses or prefixes of the remote side
    #[arg(value_name = "ADDRESS", required = true, value_parser = parse_network)]
    peers: Vec<IpNet>,
    /// Explain by this class file instead; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Output format; JSON has one document for each address
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What an explanation is based on.
struct Basis {
    file: ClassFile,
    bytes: Vec<u8>,
    order: ClassOrder,
    /// The file's name; `None` for lines that are in no file.
    name: Option<String>,
    /// Whether the configured file can be used.
    is_usable: bool,
}

pub(super) fn run(global: &Global, options: &ExplainOptions) -> anyhow::Result<Done> {
    let (config, is_config_usable) = global.config_to_show();
    let basis = match &options.file {
        Some(path) => {
            let (file, bytes) = class_source::read(path)?;
            class_source::log_line_warnings(path, &file);
            let name = Some(path.display().to_string());
            Basis { file, bytes, order: config.class_order, name, is_usable: true }
        }
        None => match in_force(global, &config) {
            Some(basis) => basis,
            None => configured(&config)?,
        },
    };
    let mut names = class_source::class_names(&config, &global.state_dir);
    for (class, name) in &basis.file.names {
        names.entry(*class).or_insert_with(|| name.clone());
    }
    for (at, peer) in options.peers.iter().enumerate() {
        if at > 0 && options.format == Format::Table {
            print("\n")?;
        }
        let context = ExplainContext { file: basis.name.clone(), names: names.clone() };
        print(&explain(&basis, *peer, context, options.format)?)?;
    }
    Ok(Done::success_if(is_config_usable && basis.is_usable))
}

fn explain(basis: &Basis, peer: IpNet, context: ExplainContext, format: Format) -> anyhow::Result<String> {
    if peer.prefix_len() == peer.max_prefix_len() {
        let explanation = traffic_classes::explain(&basis.file, basis.order, peer.addr());
        let explanation = explanation.with_context(&basis.bytes, context);
        return match format {
            Format::Table => Ok(explanation.to_string()),
            Format::Json => json::document(&explanation),
        };
    }
    let explanation = traffic_classes::explain_prefix(&basis.file, basis.order, peer).with_context(context);
    match format {
        Format::Table => Ok(explanation.to_string()),
        Format::Json => json::document(&explanation),
    }
}

/// The table that packets are counted under: by the file that it was compiled from, if that is known, or else
/// by its prefixes. `None` without counters. Says how the configured file differs.
fn in_force(global: &Global, config: &Config) -> Option<Basis> {
    let maps = load::open(&global.pinned()).ok()?;
    let known = Known::of_kernel(&maps, &global.state_dir);
    let hash = known.hash()?;
    let difference = class_source::difference_from_table_in_force(config, &global.state_dir, &known);
    let is_usable = difference.as_ref().is_none_or(|difference| difference.refused.is_none());
    if let Some(difference) = &difference {
        // A file that cannot be read or has a wrong line is reported with all of its first lines.
        match class_source::compiled(config, class_source::Wanted::Configured) {
            Err(error) => tracing::error!("{error:#}"),
            Ok(_) if is_usable => tracing::warn!("{difference}"),
            Ok(_) => tracing::error!("{difference}"),
        }
    }
    let record = class_source::record_of(&global.state_dir, hash);
    if let Some(record) = record
        && let (Some(bytes), Some(order)) = (record.bytes(&global.state_dir), record.order)
    {
        let name = record.file.map(|file| file.display().to_string());
        // The table that Virtuozzo ships comes from no file.
        let files = [traffic_classes::parse(&bytes), ClassFile::shipped()];
        let decides = |file: &ClassFile| traffic_classes::compile(&file.entries, order).hash() == *hash;
        if let Some(file) = files.into_iter().find(decides) {
            return Some(Basis { file, bytes, order, name, is_usable });
        }
    }
    if difference.is_none()
        && let Some(path) = class_source::locate(config)
        && let Ok(bytes) = class_source::read_bytes(&path)
    {
        return Some(basis(bytes, config.class_order, (Some(path.display().to_string()), true)));
    }
    tracing::warn!("the lines are those of `trafctl classes list`: the file that was loaded is not known");
    let held = tables::in_force(&maps).ok()?;
    let text: String = held.into_iter().map(|(prefix, class)| format!("{class} {prefix}\n")).collect();
    // It is compiled: what an order decides was decided when it was loaded.
    Some(basis(text.into_bytes(), ClassOrder::LongestPrefix, (None, is_usable)))
}

fn basis(bytes: Vec<u8>, order: ClassOrder, (name, is_usable): (Option<String>, bool)) -> Basis {
    Basis { file: traffic_classes::parse(&bytes), bytes, order, name, is_usable }
}

/// The configured file, for a node without counters.
fn configured(config: &Config) -> anyhow::Result<Basis> {
    let loaded = class_source::compiled(config, class_source::Wanted::Configured)?;
    let name = loaded.origin.path.map(|path| path.display().to_string());
    Ok(Basis {
        file: loaded.file,
        bytes: loaded.origin.bytes,
        order: loaded.origin.order,
        name,
        is_usable: true,
    })
}
