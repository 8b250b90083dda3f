//! Mounts of the host's file systems: the device of a file system that has no device number of its
//! own, such as btrfs.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::proc::{read_bytes, unescape};

/// Returns the number (`dev_t`) of the block device from which the file system of a file was
/// mounted; `None` if the mount has no block device, or can't be found.
#[must_use]
pub(super) fn device(file: &Path) -> Option<u64> {
    let source = source(&read_bytes("/proc/self/mountinfo").ok()?, &file.canonicalize().ok()?)?;
    let meta = std::fs::metadata(source).ok()?;
    meta.file_type().is_block_device().then(|| meta.rdev())
}

/// Returns the source of the mount that holds a path, from the text of `/proc/self/mountinfo`: of
/// those with the longest mount point the last, which covers the others.
fn source(mountinfo: &[u8], path: &Path) -> Option<PathBuf> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let point = unescape(fields.nth(4)?);
        let source = fields.skip_while(|&field| field != b"-").nth(2)?;
        path.starts_with(&point).then(|| (point, unescape(source)))
    });
    let (_, source) = mounts.max_by_key(|(point, _)| point.as_os_str().as_bytes().len())?;
    source.is_absolute().then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_holds_a_path_is_found() {
        let text = b"21 1 0:20 / / rw - ext4 /dev/sda1 rw\n\
            22 21 0:31 /@swap /swap\\040space rw shared:1 - btrfs /dev/sda2 rw\n\
            23 21 0:32 / /net rw - nfs server:/export rw\n\
            24 21 0:33 / /net\xff rw - tmpfs tmpfs rw\nodd\n";
        let of = |path: &str| source(text, Path::new(path));
        assert_eq!(of("/swap space/file"), Some("/dev/sda2".into()));
        assert_eq!(of("/swap/file"), Some("/dev/sda1".into()));
        assert_eq!(of("/net/file"), None);
        assert_eq!(source(b"", Path::new("/x")), None);
    }
}
