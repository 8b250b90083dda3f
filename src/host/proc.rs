//! Files outside the cgroup hierarchy, under `/proc` and `/sys`: reading and parsing.
//!
//! The files are read as bytes. Paths of mounts and swap areas and names of cgroups need not be
//! UTF-8, and one such name must not make a whole file unreadable.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Reads a file under `/proc` or `/sys` as text. Bytes that aren't UTF-8 are replaced: use
/// [`read_bytes`] for files with names in them.
pub(crate) fn read_system_file(path: &str) -> io::Result<String> {
    Ok(text_of(read_bytes(path)?))
}

/// Returns the kernel's error that an error of the standard library stands for.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Reads a small file in a directory as text.
pub(crate) fn read_in(dir: &Path, file: &str) -> io::Result<String> {
    Ok(text_of(std::fs::read(dir.join(file))?))
}

/// Reads a file of procfs as bytes.
pub(crate) fn read_bytes(path: &str) -> io::Result<Vec<u8>> {
    // Files of procfs don't report their length, and the standard library would begin with 32
    // bytes.
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Converts the kernel's bytes to text. Numbers and keywords are ASCII; a line with other bytes
/// affects no other line.
pub(crate) fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Returns whether a process with this ID exists, whether `/proc` shows it (`hidepid=`, proc(5)) or
/// not. False for what is no process ID.
pub(crate) fn process_exists(pid: &str) -> bool {
    let pid = pid.parse().ok().filter(|&pid| pid > 0).and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM)))
}

/// Parses a number as cgroup files spell it; `max` is `None`.
pub(crate) fn parse_number(text: &str) -> Result<Option<u64>, Errno> {
    match text.trim() {
        "max" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| Errno::INVAL),
    }
}

/// Returns the size of a page, bytes.
pub(crate) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Returns `vm.swappiness`; `None` if it can't be read.
pub(crate) fn swappiness() -> Option<u8> {
    read_system_file("/proc/sys/vm/swappiness").ok()?.trim().parse().ok()
}

/// Returns the value of a key in the text of `/proc/meminfo`, bytes.
pub(crate) fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the value of a key in a text of lines `key value`, such as `/proc/vmstat`: events, or
/// pages.
pub(crate) fn flat_keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Returns the memory of the host, bytes.
pub(crate) fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(info.mem_unit.into())
}

/// Returns the number of CPUs that are online.
pub(crate) fn cpus() -> u64 {
    let online = read_system_file("/sys/devices/system/cpu/online").ok();
    let cpus = online.as_deref().and_then(cpu_count);
    cpus.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64))
}

/// Returns the number of CPUs that a list such as `0-3,8` names.
fn cpu_count(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0, |sum: u64, range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        sum.checked_add(to.checked_sub(from)?.checked_add(1)?)
    })
}

/// Undoes the escape `\040` of blank, tab, newline and backslash in a path of mountinfo or
/// `/proc/swaps`.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if let (b'\\', Some(byte)) = (first, octal(after)) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Returns the byte that three octal digits stand for.
fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(cpu_count("0\n"), Some(1));
        assert_eq!(cpu_count("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpu_count(""), None);
        assert_eq!(cpu_count("3-1"), None);
    }

    #[test]
    fn keys_are_whole_words() {
        let meminfo =
            "MemTotal: 5 kB\nHugetlb:        2048 kB\nZswap:   x kB\nHuge: 18446744073709551615 kB\n";
        let of = |key| meminfo_bytes(meminfo, key);
        assert_eq!((of("MemTotal"), of("Hugetlb")), (Some(5 << 10), Some(2 << 20)));
        assert_eq!((of("Mem"), of("Zswap"), of("Huge"), of("Swap")), (None, None, None, None));
        let vmstat = "nr_dirty_threshold 7\nnr_dirty 5\nodd x\n";
        let of = |key| flat_keyed(vmstat, key);
        assert_eq!((of("nr_dirty"), of("nr_dir"), of("odd")), (Some(5), None, None));
    }
}
