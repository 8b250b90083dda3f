//! Human-readable sizes, times and names.

use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use humansize::{BINARY, FormatSizeOptions, SizeFormatter, format_size, format_size_i};
use memctl::cgroup::Name;
use memctl::cgroup::error::error_text;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::io::Errno;

/// Formats a size: `10.07 MiB`.
pub fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

/// Formats a size for a column: `10.1M`, `154M`, `0`.
pub fn compact(bytes: u64) -> String {
    let mut text = String::new();
    push_compact(&mut text, bytes);
    text
}

/// Appends a size as [`compact`] formats it.
pub fn push_compact(text: &mut String, bytes: u64) {
    if bytes < 1 << 10 {
        // Most cells on most hosts: without floating-point arithmetic.
        let _ = write!(text, "{bytes}");
        return;
    }
    let options = FormatSizeOptions::from(BINARY).decimal_places(1).space_after_value(false);
    let _ = write!(text, "{}", SizeFormatter::new(bytes, options));
    text.truncate(text.trim_end_matches('B').trim_end_matches('i').len());
}

/// Formats a difference: `+72 KiB`, `-3 MiB`, `0 B`.
pub fn difference(bytes: i64) -> String {
    match bytes {
        1.. => format!("+{}", format_size(bytes as u64, BINARY)),
        _ => format_size_i(bytes, BINARY),
    }
}

/// Formats a time: `340 us`, `41 ms`, `1.3 s`, `2m 5s`.
pub fn time(time: Duration) -> String {
    match time.as_micros() {
        0 => "0 ms".into(),
        micros @ 1..1_000 => format!("{micros} us"),
        micros @ 1_000..1_000_000 => format!("{} ms", (micros + 500) / 1000),
        1_000_000..60_000_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
    }
}

/// Formats a count: `1 rule`, `3 rules`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Escapes every character of a cgroup's name that would act on a terminal: containers choose their
/// names.
pub fn escaped(name: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !name.contains(acts) {
        return name.to_owned();
    }
    name.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// True if tables show paths also where the names of pods are known.
static SHOWS_PATHS: AtomicBool = AtomicBool::new(false);

/// Sets that tables show paths also where the names of pods are known, from now on.
pub fn show_paths() {
    SHOWS_PATHS.store(true, Ordering::Relaxed);
}

/// Returns the escaped name of a cgroup for people: the names of its pod and container, or its path.
pub fn called(name: &Name) -> String {
    escaped(if SHOWS_PATHS.load(Ordering::Relaxed) { name } else { name.label() })
}

/// Bytes that are not percent-encoded in a path: the unreserved characters of RFC 3986, and the
/// slash.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a path.
pub fn encoded_path(path: &Path) -> String {
    percent_encode(path.as_os_str().as_bytes(), KEPT).to_string()
}

/// Shortens a name to at most `width` characters. Of a path, the last components stay, which tell
/// cgroups apart; a last one that is too long is cut in the middle.
pub fn shortened(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width || width < 3 {
        return name.to_owned();
    }
    let fits = |&(at, _): &(usize, &str)| name[at..].chars().count() < width;
    if let Some((at, _)) = name.match_indices('/').find(fits).filter(|(at, _)| at + 1 < name.len()) {
        return format!("…{}", &name[at..]);
    }
    let last = name.rsplit_once('/').map(|(_, last)| last).filter(|last| !last.is_empty());
    cut(last.unwrap_or(name), width)
}

/// Cuts a text in the middle: both ends identify it better.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// Formats hundredths of a percent as the kernel and systemd do.
pub fn hundredths(share: u16) -> String {
    format!("{}.{:02}%", share / 100, share % 100)
}

/// Returns the text of a kernel error, in lower case.
pub fn errno_text(errno: Errno) -> String {
    error_text(&io::Error::from(errno))
}

/// Function that formats an amount in bytes.
pub type Size<'a> = &'a dyn Fn(u64) -> String;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(size(10 << 20), "10 MiB");
        assert_eq!(size(10_559_488), "10.07 MiB");
        assert_eq!(compact(10_559_488), "10.1M");
        assert_eq!((compact(0), compact(1023), compact(10 << 30)), ("0".into(), "1023".into(), "10G".into()));
        assert_eq!(difference(73_728), "+72 KiB");
        assert_eq!(difference(-3_145_728), "-3 MiB");
        assert_eq!(difference(0), "0 B");
        assert_eq!(time(Duration::from_micros(340)), "340 us");
        assert_eq!(time(Duration::from_micros(41_400)), "41 ms");
        assert_eq!(time(Duration::from_millis(1300)), "1.3 s");
        assert_eq!(time(Duration::from_secs(125)), "2m 5s");
    }

    #[test]
    fn names_can_not_drive_a_terminal() {
        assert_eq!(escaped("/a/b c"), "/a/b c");
        assert_eq!(escaped("/a\u{1b}[2J\n"), "/a\\u{1b}[2J\\n");
        assert_eq!(escaped("/\u{202e}x"), "/\\u{202e}x");
    }

    #[test]
    fn long_names_keep_what_tells_them_apart() {
        assert_eq!(shortened("/kubepods/pod1", 40), "/kubepods/pod1");
        assert_eq!(shortened("/kubepods/pod1", 9), "…/pod1");
        assert_eq!(shortened("/system.slice/nginx.service", 16), "…/nginx.service");
        assert_eq!(shortened("/a/b/c/nginx.service", 18), "…/c/nginx.service");
        assert_eq!(shortened("/system.slice/nginx.service", 13), "nginx.service");
        assert_eq!(shortened("/x/cri-containerd-0123456789.scope", 16), "cri-con…89.scope");
        assert_eq!(shortened("app-0123456789.service", 9), "app-…vice");
        assert_eq!(shortened("/kubepods/burstable/", 9), "/kub…ble/");
        assert_eq!(shortened("/aé/ü", 3), "…/ü");
    }
}
