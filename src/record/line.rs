//! One line of a record.

use std::io::{BufRead, Read as _};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::RecordError;

/// Maximum length of a line in bytes. No line that a watch writes comes near it: a cgroup's name
/// has 4096 bytes at most.
const MOST_BYTES: u64 = 64 << 10;

/// Beginning of every line: where one was cut off, the next may follow within the same line. It
/// isn't part of a string, where quotes are escaped.
const BEGIN: &[u8] = br#"{"event":""#;

/// Keys of a line that matter here. Keys are only ever added to the format, so others are ignored.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RecordLine {
    #[serde(default)]
    pub event: String,
    #[serde(default)]
    pub at_usec: u64,
    pub cgroup: Option<String>,
    pub path_bytes: Option<String>,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    pub container: Option<String>,
    pub version: Option<u64>,
    pub started_usec: Option<u64>,
    pub rule: Option<String>,
    pub current_bytes: Option<u64>,
    pub current_most_bytes: Option<u64>,
    pub current_after_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub requested_bytes: Option<u64>,
    pub reclaimed_bytes: Option<u64>,
    pub refaulted_bytes: Option<u64>,
    pub direct_bytes: Option<u64>,
    #[serde(default)]
    pub direct_at_most: bool,
    pub stalled_usec: Option<u64>,
    pub cpu_usec: Option<u64>,
    pub total_cpu_usec: Option<u64>,
    pub estimated_working_set_bytes: Option<u64>,
    pub suggested_max_bytes: Option<u64>,
    pub net_saved_bytes: Option<i64>,
    pub dry_run: Option<bool>,
    pub dropped_events: Option<u64>,
}

impl RecordLine {
    /// Returns the names of the pod and the container: `NAMESPACE/NAME/CONTAINER`.
    pub(super) fn pod_names(&self) -> Option<String> {
        let container = self.container.as_ref().map(|container| format!("/{container}"));
        Some(format!("{}/{}{}", self.namespace.as_ref()?, self.pod.as_ref()?, container.unwrap_or_default()))
    }
}

/// Result of reading a line, of which `L` has the keys that matter to the reader.
pub enum Read<L> {
    /// A line.
    Line(Box<L>),
    /// A line that another was cut off before.
    AfterTorn(Box<L>),
    /// A line that was cut off, but ends.
    Torn,
    /// A blank line.
    Blank,
    /// Text that isn't JSON: a log may have other lines, such as those of the same watch without
    /// `--json`.
    Text,
    /// An incomplete line without its end, which can't be parsed.
    Cut,
    /// End of the record.
    End,
}

/// Reads the line of that number.
///
/// # Errors
/// [`RecordError::Io`], and [`RecordError::Line`] for a line that is neither text nor cut off.
pub fn read<L: DeserializeOwned>(from: &mut impl BufRead, number: usize) -> Result<Read<L>, RecordError> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(Read::End);
    }
    let ended = bytes.pop_if(|last| *last == b'\n').is_some();
    let is_long = !ended && bytes.len() as u64 == MOST_BYTES;
    if bytes.iter().all(u8::is_ascii_whitespace) && !is_long {
        return Ok(Read::Blank);
    }
    let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
    if is_long {
        if !is_json {
            from.skip_until(b'\n')?;
            return Ok(Read::Text);
        }
        let what = format!("the line is longer than {} KiB", MOST_BYTES >> 10);
        return Err(RecordError::Line { line: number, column: bytes.len(), what });
    }
    let why = match serde_json::from_slice(&bytes) {
        Ok(line) => return Ok(Read::Line(Box::new(line))),
        Err(why) => why,
    };
    let begins = bytes.windows(BEGIN.len()).rposition(|part| part == BEGIN).filter(|&at| at > 0);
    if let Some(line) = begins.and_then(|at| serde_json::from_slice(&bytes[at..]).ok()) {
        // What stands before it may be a prefix of a log.
        let line = Box::new(line);
        return Ok(if is_json { Read::AfterTorn(line) } else { Read::Line(line) });
    }
    if !is_json {
        return Ok(Read::Text);
    }
    if !ended {
        return Ok(Read::Cut);
    }
    if why.is_eof() && bytes.starts_with(BEGIN) {
        return Ok(Read::Torn);
    }
    // The message repeats the position, as if there were one line.
    let what = why.to_string();
    let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what).to_owned();
    let what = format!("not a line of a record: {what}");
    Err(RecordError::Line { line: number, column: why.column().max(1), what })
}
