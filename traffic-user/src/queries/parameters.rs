//! Reads the options of a query from the parameters of a URL, with the parser of the command line.
//!
//! A parameter has the name of the option with `_` for `-`. A flag takes `true`, `false` or nothing.

use clap::{
    Arg, ArgAction, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The pairs of a query string, in their order.
pub type Pairs = Vec<(String, String)>;

/// Parses options. Every value stands behind its own name, so that none can pass for another option. Of what is fixed
/// unless it is given, options that do not know it take nothing.
///
/// # Errors
/// One sentence that names the parameter and what is accepted.
pub fn parse<T: Args + FromArgMatches>(pairs: &Pairs, fixed: &[(&str, &str)]) -> Result<T, String> {
    let command = T::augment_args(Command::new("query"))
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true);
    let mut words = Vec::new();
    let fixed = fixed.iter().filter(|(name, _)| !pairs.iter().any(|(given, _)| given == name));
    let fixed = fixed.filter(|(name, _)| find(&command, name).is_some());
    let fixed: Vec<_> = fixed.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in pairs.iter().chain(&fixed) {
        let argument = find(&command, name)
            .ok_or_else(|| format!("parameter {name:?} is unknown; write {}", names(&command)))?;
        let long = argument.get_long().unwrap_or_default();
        match (argument.get_action(), value.as_str()) {
            (ArgAction::SetTrue, "" | "true") => words.push(format!("--{long}")),
            (ArgAction::SetTrue, "false") => {}
            (ArgAction::SetTrue, other) => {
                return Err(format!("parameter {name}: {other:?} is not accepted; write true or false"));
            }
            _ => words.push(format!("--{long}={value}")),
        }
    }
    let in_words = |error: &clap::Error| in_words(error, &command);
    let matches = command.clone().try_get_matches_from(words).map_err(|error| in_words(&error))?;
    T::from_arg_matches(&matches).map_err(|error| in_words(&error))
}

fn find<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    command.get_arguments().find(|argument| parameter(argument).is_some_and(|known| known == name))
}

/// The name of an option as a parameter.
fn parameter(argument: &Arg) -> Option<String> {
    argument.get_long().map(|long| long.replace('-', "_"))
}

fn names(command: &Command) -> String {
    let mut names: Vec<String> = command.get_arguments().filter_map(parameter).collect();
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last } else { format!("{} or {last}", names.join(", ")) }
}

/// An error of the parser as one sentence, with the names of parameters.
fn in_words(error: &clap::Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // `--by <BY>`
    let option = |kind| {
        let shown = text(kind)?;
        let long = shown.trim_start_matches('-').split([' ', '=']).next()?.to_owned();
        Some(long.replace('-', "_"))
    };
    let argument = option(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue => {
            let valid = text(ContextKind::ValidValue).unwrap_or_default();
            format!("parameter {argument}: {value:?} is not accepted; write one of {valid}")
        }
        ErrorKind::ArgumentConflict => match option(ContextKind::PriorArg) {
            Some(other) if other != argument => {
                format!("parameters {other} and {argument} exclude each other; leave one out")
            }
            _ => format!("parameter {argument} appears twice; leave one out"),
        },
        ErrorKind::MissingRequiredArgument => {
            format!("parameter {argument} is missing; write {}", names(command))
        }
        _ => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            let source = source.unwrap_or_else(|| "it is not accepted".to_owned());
            format!("parameter {argument}: {value:?}: {source}")
        }
    }
}

/// A message of the command line in the names of parameters.
pub fn renamed(message: &str) -> String {
    ["--by", "--last", "--tz", "--from", "--to", "--percentile"]
        .iter()
        .fold(message.to_owned(), |message, option| message.replace(option, option.trim_start_matches('-')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::{ReportOptions, SheetFormat, TopOptions};

    fn pairs(query: &[(&str, &str)]) -> Pairs {
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_mistake_is_a_sentence_with_the_parameters_name() {
        for (query, sentence) in [
            (
                &[("contaner", "101")][..],
                "parameter \"contaner\" is unknown; write by, container, class, from, ",
            ),
            (&[("billing-day", "3")], "parameter \"billing-day\" is unknown"),
            (
                &[("by", "decade")],
                "parameter by: \"decade\" is not accepted; write one of 5min, hour, day, week, month, year, total",
            ),
            (&[("by", "day"), ("by", "hour")], "parameter by appears twice; leave one out"),
            (&[("class", "256")], "parameter class: \"256\": class 256 is out of range; write 0 to 254"),
            (&[("class", "")], "parameter class: \"\""),
            (&[("billing_day", "32")], "parameter billing_day: \"32\": 32 is not in 1..=31"),
            (&[("percentile", "many")], "parameter percentile: \"many\": invalid float literal"),
            (&[("last", "1d"), ("from", "2026-11-01")], " exclude each other; leave one out"),
            (&[("help", "")], "parameter \"help\" is unknown"),
            (&[("", "x")], "parameter \"\" is unknown"),
        ] {
            let error = parse::<ReportOptions>(&pairs(query), &[]).unwrap_err();
            assert!(error.contains(sentence), "{query:?}: {error}");
            assert!(!error.contains("--") && !error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn flags_and_values_are_read_and_a_value_is_never_another_option() {
        let by_class = |value: &str| parse::<TopOptions>(&pairs(&[("by_class", value)]), &[]).is_ok();
        assert!(by_class("") && by_class("true") && by_class("false"));
        assert!(!by_class("1"));
        let odd =
            parse::<ReportOptions>(&pairs(&[("container", "--by=day"), ("container", "-h")]), &[]).unwrap();
        assert!(format!("{odd:?}").contains("[\"--by=day\", \"-h\"]"), "{odd:?}");
        let format = |query: &[(&str, &str)]| {
            parse::<ReportOptions>(&pairs(query), &[("format", "json")]).unwrap().format
        };
        assert_eq!((format(&[]), format(&[("format", "csv")])), (SheetFormat::Json, SheetFormat::Csv));
    }
}
