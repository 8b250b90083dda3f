//! Many mounts, for tests/vm/bench-mounts: this test binary, run again under another name, which a
//! shell would need minutes for.

use std::path::Path;

const MARK: &str = "memctl-test-mounts";

/// Returns the number of mounts that this process was started to make, if it was.
pub fn asked_for() -> Option<u32> {
    (std::env::args_os().nth(1)? == MARK).then_some(())?;
    std::env::args().nth(2)?.parse().ok()
}

/// Mounts a directory of a tmpfs over that many others, with paths as long as a runtime's.
pub fn make(count: u32) {
    let top = Path::new("/mounts");
    std::fs::create_dir(top).expect("a directory");
    rustix::mount::mount("tmpfs", top, "tmpfs", rustix::mount::MountFlags::empty(), c"").expect("a tmpfs");
    let source = top.join("source");
    std::fs::create_dir(&source).expect("a directory");
    for number in 1..count {
        let target = top.join(format!("{number:064x}"));
        std::fs::create_dir(&target).expect("a directory");
        rustix::mount::mount_bind(&source, &target).expect("a bind mount");
    }
}
