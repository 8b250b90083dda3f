//! The text format of Prometheus, version 0.0.4.

use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{self, Write};
use std::time::Duration;

use super::names::Metric;

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A count, or bytes.
    Count(u64),
    /// A difference of bytes.
    Difference(i64),
    /// A time, told in seconds.
    Time(Duration),
    /// A share.
    Ratio(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Count(u64::from(is_so))
    }
}

impl From<i64> for Value {
    fn from(difference: i64) -> Self {
        Self::Difference(difference)
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

impl From<f64> for Value {
    fn from(ratio: f64) -> Self {
        Self::Ratio(ratio)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Difference(difference) => write!(f, "{difference}"),
            Self::Time(time) => write!(f, "{}.{:06}", time.as_secs(), time.subsec_micros()),
            Self::Ratio(ratio) => write!(f, "{ratio}"),
        }
    }
}

/// Writer of metrics. Samples of a metric follow each other: first all of one, then all of the next.
pub struct Encoder<W> {
    to: W,
    /// Name of the metric whose samples are written now.
    current: &'static str,
}

impl<W: Write> Encoder<W> {
    /// Creates a writer.
    pub fn new(to: W) -> Self {
        Self { to, current: "" }
    }

    /// Writes a sample. `labels` are the values of the metric's labels, in order, then further pairs
    /// that only this sample has.
    ///
    /// # Errors
    /// The writer's.
    pub fn sample(
        &mut self,
        metric: &Metric,
        labels: &[&str],
        more: &[(&str, &str)],
        value: impl Into<Value>,
    ) -> io::Result<()> {
        let Metric { name, kind, help, .. } = *metric;
        if self.current != name {
            self.current = name;
            writeln!(self.to, "# HELP {name} {}", Escaped { text: help, quotes: false })?;
            writeln!(self.to, "# TYPE {name} {}", kind.word())?;
        }
        self.to.write_all(name.as_bytes())?;
        let mut before: &[u8] = b"{";
        for (label, text) in
            metric.labels.iter().copied().zip(labels.iter().copied()).chain(more.iter().copied())
        {
            for piece in [before, label.as_bytes(), b"=\""] {
                self.to.write_all(piece)?;
            }
            if text.bytes().any(|byte| matches!(byte, b'\\' | b'\n' | b'"')) {
                write!(self.to, "{}", Escaped { text, quotes: true })?;
            } else {
                self.to.write_all(text.as_bytes())?;
            }
            before = b"\",";
        }
        let end: &[u8] = if before == b"{" { b" " } else { b"\"} " };
        self.to.write_all(end)?;
        writeln!(self.to, "{}", value.into())
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Text with the three characters escaped that end a label's value or a line.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        while let Some(at) = rest.find(|c| matches!(c, '\\' | '\n') || c == '"' && self.quotes) {
            f.write_str(&rest[..at])?;
            f.write_char('\\')?;
            let (special, after) = rest[at..].split_at(1);
            f.write_str(if special == "\n" { "n" } else { special })?;
            rest = after;
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{BUILD_INFO, CPU, GROUPS, RULE_HELD, Type};
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut Encoder::new(&mut bytes)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn help_and_type_come_once_before_the_samples() {
        let text = text(|to| {
            to.sample(&CPU, &[], &[], Duration::from_millis(1500))?;
            to.sample(&RULE_HELD, &["a\"\n\\", "floor"], &[], 2u64)?;
            to.sample(&RULE_HELD, &["b", "cpu"], &[("path_bytes", "%FF")], -3i64)
        });
        let help = |metric: &Metric| format!("# HELP {} {}\n# TYPE {0} counter\n", metric.name, metric.help);
        assert_eq!(
            text,
            help(&CPU)
                + "memctl_process_cpu_seconds_total 1.500000\n"
                + &help(&RULE_HELD)
                + "memctl_rule_held_total{rule=\"a\\\"\\n\\\\\",guard=\"floor\"} 2\n"
                + "memctl_rule_held_total{rule=\"b\",guard=\"cpu\",path_bytes=\"%FF\"} -3\n"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::HashSet::new();
        for metric in GROUPS.iter().flat_map(|group| group.metrics) {
            let name = metric.name;
            assert!(seen.insert(name), "{name}: twice");
            assert!(name.starts_with("memctl_"), "{name}");
            assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Type::Counter, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
            let units = ["bytes", "seconds", "ratio"].map(|unit| name.matches(unit).count());
            assert!(units.iter().sum::<usize>() <= 1, "{name}: two units");
        }
    }

    /// Reads the value of the only label of a sample, as the format's definition says: a backslash
    /// makes `n` a newline, and stands before a backslash and a quotation mark.
    fn label(line: &str) -> Option<(String, &str)> {
        let (mut text, mut rest) = (String::new(), line.split_once("=\"")?.1.chars());
        loop {
            match rest.next()? {
                '"' => return Some((text, rest.as_str())),
                '\\' => text.push(match rest.next()? {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                c => text.push(c),
            }
        }
    }

    proptest! {
        /// Whatever a cgroup or a rule is called, one sample comes back, with that name.
        #[test]
        fn any_label_comes_back(name in "(?s)[\"\\\\\n{},= a\\PC]{0,20}", value in any::<u64>()) {
            let text = text(|to| to.sample(&BUILD_INFO, &[&name], &[], value));
            let mut lines = text.split_terminator('\n').skip(2);
            let sample = lines.next().unwrap_or_default();
            prop_assert_eq!(lines.next(), None);
            prop_assert!(sample.starts_with(r#"memctl_build_info{version=""#), "{sample}");
            prop_assert_eq!(label(sample), Some((name, &*format!("}} {value}"))));
        }
    }
}
