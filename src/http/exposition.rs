//! Metrics as text, for Prometheus and as OpenMetrics. They differ in three places: the name of a counter's family, the
//! last line, and the type of the document.

use std::fmt::{Display, Write as _};

use crate::histogram::Times;

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Gauge,
    Counter,
    Histogram,
}

/// A document that is being written.
pub(crate) struct Text {
    out: String,
    open: bool,
    /// On every sample.
    tier: String,
}

impl Text {
    pub(crate) fn new(open: bool, tier: &str) -> Self {
        Self { out: String::with_capacity(8_192), open, tier: escaped(tier) }
    }

    /// Begins a family; a counter's name ends with `_total`.
    pub(crate) fn family(&mut self, name: &'static str, kind: Type, help: &str) -> Family<'_> {
        let named = if self.open { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let word = match kind {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
            Type::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {named} {help}"));
        self.line(format_args!("# TYPE {named} {word}"));
        Family { text: self, name }
    }

    pub(crate) fn end(mut self) -> String {
        if self.open {
            self.line("# EOF");
        }
        self.out
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a `String` cannot fail.
        let _ok = writeln!(self.out, "{line}");
    }
}

/// The family whose samples come now.
pub(crate) struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// One sample.
    pub(crate) fn is(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.part("", labels, value)
    }

    /// One sample whose name has an ending: the parts of a histogram.
    pub(crate) fn part(&mut self, ending: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let mut all = format!("tier=\"{}\"", self.text.tier);
        for (label, text) in labels {
            let _ok = write!(all, ",{label}=\"{}\"", escaped(text));
        }
        let name = self.name;
        self.text.line(format_args!("{name}{ending}{{{all}}} {value}"));
        self
    }

    /// The same of times that were kept as one.
    pub(crate) fn times(&mut self, labels: &[(&str, &str)], times: &Times) {
        self.histogram(labels, times.bounds, &times.buckets, times.total.as_secs_f64());
    }

    /// A whole histogram; the buckets are each alone, and one more than the bounds.
    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], buckets: &[u64], sum: f64) {
        let mut below = 0;
        let ends = bounds.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
        for (end, count) in ends.zip(buckets) {
            below += count;
            let mut labels = labels.to_vec();
            labels.push(("le", &end));
            self.part("_bucket", &labels, below);
        }
        self.part("_sum", labels, sum).part("_count", labels, below);
    }
}

/// A value of a label, as both formats write it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(open: bool) -> String {
        let mut text = Text::new(open, "a\"b");
        text.family("x_total", Type::Counter, "of x").is(&[("why", "back\\slash\nline")], 3);
        text.family("y", Type::Histogram, "of y").histogram(&[], &[0.5, 1.0], &[2, 0, 1], 3.25);
        text.end()
    }

    #[test]
    fn labels_cannot_break_out_and_buckets_are_summed_up() {
        let wanted = "# HELP x_total of x\n# TYPE x_total counter\n\
            x_total{tier=\"a\\\"b\",why=\"back\\\\slash\\nline\"} 3\n\
            # HELP y of y\n# TYPE y histogram\n\
            y_bucket{tier=\"a\\\"b\",le=\"0.5\"} 2\ny_bucket{tier=\"a\\\"b\",le=\"1.0\"} 2\n\
            y_bucket{tier=\"a\\\"b\",le=\"+Inf\"} 3\ny_sum{tier=\"a\\\"b\"} 3.25\ny_count{tier=\"a\\\"b\"} 3\n";
        assert_eq!(both(false), wanted);
        let open = wanted.replace("HELP x_total", "HELP x").replace("TYPE x_total", "TYPE x") + "# EOF\n";
        assert_eq!(both(true), open);
    }
}
