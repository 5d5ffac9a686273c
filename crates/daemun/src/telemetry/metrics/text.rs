//! The text that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write;

use super::histogram::{BOUNDS, Distribution};

/// What a family of samples is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// A text that is being written, family by family.
#[derive(Debug)]
pub struct Exposition {
    out: String,
    is_open_metrics: bool,
    family: &'static str,
    kind: Kind,
}

impl Exposition {
    /// An empty text.
    pub fn new(is_open_metrics: bool) -> Self {
        Self { out: String::new(), is_open_metrics, family: "", kind: Kind::Gauge }
    }

    /// Begins a family. `name` is without `_total`.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let what = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // The older format names a counter's family as its samples.
        let suffix = if kind == Kind::Counter && !self.is_open_metrics { "_total" } else { "" };
        let _ = write!(self.out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {what}\n");
        (self.family, self.kind) = (name, kind);
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        self.line(suffix, labels, None, value);
    }

    /// A sample of a family of histograms.
    pub fn distribution(&mut self, labels: &[(&str, &str)], distribution: &Distribution) {
        let mut below = 0;
        for (at, count) in distribution.buckets.iter().enumerate() {
            below += count;
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.line("_bucket", labels, Some(&bound), below);
        }
        self.line("_sum", labels, None, distribution.seconds);
        self.line("_count", labels, None, below);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl std::fmt::Display) {
        self.out.push_str(self.family);
        self.out.push_str(suffix);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, text) in labels {
            self.out.push(separator);
            separator = ',';
            let _ = write!(self.out, "{name}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        if separator == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// The whole text and its content type.
    pub fn finish(mut self) -> (String, &'static str) {
        if self.is_open_metrics {
            self.out.push_str("# EOF\n");
            return (self.out, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        }
        (self.out, "text/plain; version=0.0.4; charset=utf-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_counters_as_they_should() {
        let text = |open| {
            let mut exposition = Exposition::new(open);
            exposition.family("daemun_requests", Kind::Counter, "Requests.");
            exposition.sample(&[("route", "/a\"b\\\n*"), ("app", "")], 3);
            exposition.finish().0
        };
        let sample = "daemun_requests_total{route=\"/a\\\"b\\\\\\n*\",app=\"\"} 3\n";
        let older = "# HELP daemun_requests_total Requests.\n# TYPE daemun_requests_total counter\n";
        assert_eq!(text(false), format!("{older}{sample}"));
        let open = "# HELP daemun_requests Requests.\n# TYPE daemun_requests counter\n";
        assert_eq!(text(true), format!("{open}{sample}# EOF\n"));
    }

    #[test]
    fn buckets_add_up() {
        let mut distribution = Distribution { seconds: 1.5, ..Distribution::default() };
        distribution.buckets[0] = 2;
        distribution.buckets[15] = 1;
        let mut exposition = Exposition::new(false);
        exposition.family("t_seconds", Kind::Histogram, "T.");
        exposition.distribution(&[], &distribution);
        let text = exposition.finish().0;
        assert!(text.contains("t_seconds_bucket{le=\"0.0005\"} 2\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{le=\"30.0\"} 2\nt_seconds_bucket{le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.ends_with("t_seconds_sum 1.5\nt_seconds_count 3\n"), "{text}");
    }
}
