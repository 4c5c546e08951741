//! A page of metrics in one of the two formats, and the escaping of labels.

use std::fmt::{Display, Write as _};

use super::Format;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Info,
}

/// A metric family. In OpenMetrics its name lacks the suffix of its samples.
#[derive(Clone, Copy)]
pub(super) struct Metric {
    pub kind: Kind,
    pub name: &'static str,
    pub unit: Option<&'static str>,
    pub help: &'static str,
}

impl Metric {
    pub const fn counter(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Self {
        Self { kind: Kind::Counter, name, unit, help }
    }

    pub const fn gauge(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Self {
        Self { kind: Kind::Gauge, name, unit, help }
    }

    pub const fn info(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Info, name, unit: None, help }
    }

    pub fn is_counter(self) -> bool {
        self.kind == Kind::Counter
    }

    const fn suffix(self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        }
    }
}

/// The text that is being built.
pub(super) struct Page {
    pub text: String,
    pub format: Format,
}

impl Page {
    pub fn open(&mut self, metric: Metric) {
        let Metric { kind, name, unit, help } = metric;
        let (kind, suffix) = match (self.format, kind) {
            (_, Kind::Gauge) => ("gauge", ""),
            (Format::OpenMetrics, Kind::Counter) => ("counter", ""),
            (Format::OpenMetrics, Kind::Info) => ("info", ""),
            // The text format has neither suffixes nor infos.
            (Format::Text, Kind::Counter) => ("counter", metric.suffix()),
            (Format::Text, Kind::Info) => ("gauge", metric.suffix()),
        };
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {help}"));
    }

    pub fn sample(&mut self, metric: Metric, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.sample_as(metric, metric.suffix(), labels, value);
    }

    /// Says when a counter began. The text format has no place for it.
    pub fn created(&mut self, metric: Metric, labels: &[(&str, &dyn Display)], created: jiff::Timestamp) {
        if self.format == Format::OpenMetrics {
            let ms = created.as_millisecond();
            let seconds = format_args!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
            self.sample_as(metric, "_created", labels, seconds);
        }
    }

    fn sample_as(
        &mut self,
        metric: Metric,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.text.push_str(metric.name);
        self.text.push_str(suffix);
        for (at, (name, label)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&label.to_string(), &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// Adds a family with one sample without labels.
    pub fn single(&mut self, metric: Metric, value: impl Display) {
        self.open(metric);
        self.sample(metric, &[], value);
    }

    /// The same for a counter that began at a known time.
    pub fn single_since(&mut self, metric: Metric, value: impl Display, created: jiff::Timestamp) {
        self.single(metric, value);
        self.created(metric, &[], created);
    }

    pub fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _infallible = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

/// Both formats escape the same three characters in label values.
fn escape(value: &str, to: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            other => to.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let metric = Metric { kind: Kind::Counter, name: "a", unit: None, help: "" };
        let mut page = Page { text: String::new(), format: Format::OpenMetrics };
        page.sample(metric, &[("x", &"a\"b\\c\nd} 1"), ("y", &"ä")], 2);
        assert_eq!(page.text, "a_total{x=\"a\\\"b\\\\c\\nd} 1\",y=\"ä\"} 2\n");
    }
}
