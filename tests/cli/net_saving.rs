//! Net saving: reclaimed bytes minus the compressed copies that stay in memory.

use std::process::Command;

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, number, parse, report, run};
use crate::watch::{events, of};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => zram_takes_some_of_it_back, zram_is_known_whatever_its_path, a_swap_file_on_zram_is_zram,
            swap_files_and_virtual_disks;
        "guest reclaim zswap" => zswap_takes_some_of_it_back
    ]
}

fn busybox(words: &[&str]) {
    let status = Command::new("/bin/busybox").args(words).status().expect("busybox");
    assert!(status.success() || std::thread::panicking(), "{words:?}");
}

/// Swap on zram instead of the guest's disk, until this is dropped.
pub struct Zram;

impl Zram {
    pub fn on() -> Self {
        Self::on_by(|| busybox(&["swapon", "/dev/zram0"]))
    }

    /// Makes it the only swap; `swapon` switches it on.
    fn on_by(swapon: impl FnOnce()) -> Self {
        Self::load();
        busybox(&["mkswap", "/dev/zram0"]);
        busybox(&["swapoff", "/dev/vdb"]);
        let zram = Self;
        swapon();
        zram
    }

    /// Makes the device.
    fn load() {
        let modules = std::fs::read_to_string("/modules/order-zram").expect("the list of modules");
        for module in modules.lines() {
            let name = module.trim_end_matches(".ko").replace('-', "_");
            if !std::path::Path::new("/sys/module").join(name).exists() {
                busybox(&["insmod", &format!("/modules/{module}")]);
            }
        }
        std::fs::write("/sys/block/zram0/disksize", "250M").expect("size zram");
    }

    /// Returns the memory that it uses.
    fn used() -> i64 {
        let text = std::fs::read_to_string("/sys/block/zram0/mm_stat").expect("zram tells");
        text.split_ascii_whitespace().nth(2).and_then(|used| used.parse().ok()).expect("a number")
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        busybox(&["swapoff", "/dev/zram0"]);
        busybox(&["swapon", "/dev/vdb"]);
        let _ = std::fs::write("/sys/block/zram0/reset", "1");
    }
}

fn zram_takes_some_of_it_back() {
    let _zram = Zram::on();
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(80 * M));
    let before = Zram::used();
    let report = report(&["reclaim", "app", "40M"], 0);
    let taken = Zram::used() - before;
    let told = number(&report, "zram_grown_estimate_bytes");
    assert!(taken > M as i64, "zram took {taken}");
    assert!((told - taken).abs() <= taken / 10, "{taken} taken, {report}");
    assert_eq!(number(&report, "net_saved_bytes"), number(&report, "reclaimed_bytes") - told);
    let ran = run(&["reclaim", "app", "20M"]);
    assert!(
        ran.stdout.contains("\nnet saving  about ") && ran.stdout.contains("in zram (estimated"),
        "{}",
        ran.stdout
    );
}

/// Asserts that the only swap is recognized as zram.
#[track_caller]
fn assert_zram(path: &str) {
    let swaps = std::fs::read_to_string("/proc/swaps").expect("the kernel's list");
    assert!(swaps.contains(&format!("\n{path} ")), "{swaps}");
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(60 * M));
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    let says = finding(&line, "swap")["says"].as_str().expect("text");
    assert!(says.contains(&format!("{path} (zram, priority ")), "{says}");
    let report = report(&["reclaim", "app", "20M"], 0);
    let told = number(&report, "zram_grown_estimate_bytes");
    assert_eq!(number(&report, "net_saved_bytes"), number(&report, "reclaimed_bytes") - told);
    let events = events(&["app", "--keep", "20M", "--duration", "4s"]);
    assert!(of(&events, "hold").iter().all(|hold| hold["guard"] != "slow_swap"), "{events:?}");
    assert!(app.current() < 30 * M, "{}: {events:?}", app.current());
}

fn zram_is_known_whatever_its_path() {
    {
        // In a mount namespace that ends at once: its mount can't be reached from here.
        let swapon = "mkdir -p /run/dev && mount -t devtmpfs dev /run/dev && swapon /run/dev/zram0";
        let _zram = Zram::on_by(|| busybox(&["unshare", "-m", "sh", "-c", swapon]));
        assert_zram("/zram0");
    }
    let _ = std::fs::create_dir("/dev/block");
    let path = "/dev/block/swap of\u{e9}";
    let _zram = Zram::on_by(|| {
        let number = std::fs::read_to_string("/sys/block/zram0/dev").expect("its number");
        let (major, minor) = number.trim().split_once(':').expect("two numbers");
        busybox(&["mknod", path, "b", major, minor]);
        busybox(&["swapon", path]);
    });
    // The kernel escapes the blank.
    let swaps = std::fs::read_to_string("/proc/swaps").expect("the kernel's list");
    assert!(swaps.contains("/dev/block/swap\\040of\u{e9}"), "{swaps}");
    let line = parse(&run(&["check", "--json"]).stdout);
    let says = finding(&line, "swap")["says"].as_str().expect("text");
    assert!(says.contains("/dev/block/swap of\u{e9} (zram, priority "), "{says}");
    std::fs::remove_file(path).expect("a node");
    let line = parse(&run(&["check", "--json"]).stdout);
    let says = finding(&line, "swap")["says"].as_str().expect("text");
    assert!(says.contains(" (zram, priority "), "by its size: {says}");
}

/// A swap file on ext2 on zram as the only swap, until this is dropped.
struct FileOnZram;

impl FileOnZram {
    const PATH: &str = "/run/ext/swapfile";

    fn on() -> Self {
        Zram::load();
        let file = Self;
        // zram has no smaller blocks than a page.
        busybox(&["mke2fs", "-b", "4096", "/dev/zram0"]);
        std::fs::create_dir_all("/run/ext").expect("a mount point");
        busybox(&["mount", "-t", "ext4", "/dev/zram0", "/run/ext"]);
        // Written, since a file with holes is no swap.
        busybox(&["dd", "if=/dev/zero", &format!("of={}", Self::PATH), "bs=1M", "count=150"]);
        busybox(&["mkswap", Self::PATH]);
        busybox(&["swapon", Self::PATH]);
        busybox(&["swapoff", "/dev/vdb"]);
        file
    }
}

impl Drop for FileOnZram {
    fn drop(&mut self) {
        busybox(&["swapon", "/dev/vdb"]);
        busybox(&["swapoff", Self::PATH]);
        busybox(&["umount", "/run/ext"]);
        let _ = std::fs::write("/sys/block/zram0/reset", "1");
    }
}

fn a_swap_file_on_zram_is_zram() {
    let _swap = FileOnZram::on();
    assert_zram(FileOnZram::PATH);
}

fn swap_files_and_virtual_disks() {
    const FILE: &str = "/data/zram0 swap";
    let file = std::fs::File::create(FILE).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 16 * M).expect("room for it");
    drop(file);
    busybox(&["mkswap", FILE]);
    busybox(&["swapon", FILE]);
    let line = parse(&run(&["check", "--json"]).stdout);
    busybox(&["swapoff", FILE]);
    std::fs::remove_file(FILE).expect("the file");
    let says = finding(&line, "swap")["says"].as_str().expect("text");
    for area in
        ["/dev/vdb (disk of unknown speed, priority ", "/data/zram0 swap (disk of unknown speed, priority "]
    {
        assert!(says.contains(area), "{says}");
    }
    // An administrator who knows better says so.
    std::fs::write("/sys/block/vdb/queue/rotational", "0").expect("a writable queue");
    let line = parse(&run(&["check", "--json"]).stdout);
    std::fs::write("/sys/block/vdb/queue/rotational", "1").expect("a writable queue");
    let says = finding(&line, "swap")["says"].as_str().expect("text");
    assert!(says.contains("/dev/vdb (non-rotating disk, priority "), "{says}");
}

/// zswap, until this is dropped.
pub struct Zswap;

impl Zswap {
    const ENABLED: &str = "/sys/module/zswap/parameters/enabled";

    pub fn on() -> Self {
        std::fs::write(Self::ENABLED, "1").expect("switch zswap on");
        Self
    }
}

impl Drop for Zswap {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::ENABLED, "0");
    }
}

fn zswap_takes_some_of_it_back() {
    let _zswap = Zswap::on();
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(80 * M));
    let before = app.current() as i64;
    let report = report(&["reclaim", "app", "40M"], 0);
    let fell = before - app.current() as i64;
    let copies = app.stat("zswap") as i64;
    let (told, saved) = (number(&report, "zswap_grown_bytes"), number(&report, "net_saved_bytes"));
    assert!(copies > M as i64 && (told - copies).abs() <= copies / 10, "{copies} in zswap, {report}");
    assert!(number(&report, "zswapped_bytes") >= 36 * M as i64, "{report}");
    assert_eq!(saved, number(&report, "reclaimed_bytes") - told);
    assert!((saved - fell).abs() <= fell / 10, "memory.current fell by {fell}, {report}");
    // The copies don't count as growth of the application.
    assert!(number(&report, "grown_bytes") <= 2 * M as i64, "{report}");
    let ran = run(&["reclaim", "app", "20M"]);
    assert!(ran.stdout.contains("for compressed copies in zswap"), "{}", ran.stdout);
}
