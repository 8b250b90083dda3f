//! Net saving: reclaimed bytes minus the compressed copies that stay in memory.

use std::process::Command;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, number, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => zram_takes_some_of_it_back;
        "guest reclaim zswap" => zswap_takes_some_of_it_back
    ]
}

fn busybox(words: &[&str]) {
    let status = Command::new("/bin/busybox").args(words).status().expect("busybox");
    assert!(status.success() || std::thread::panicking(), "{words:?}");
}

/// Swap on zram instead of the guest's disk, until this is dropped.
struct Zram;

impl Zram {
    pub fn on() -> Self {
        let modules = std::fs::read_to_string("/modules/order-zram").expect("the list of modules");
        for module in modules.lines() {
            let name = module.trim_end_matches(".ko").replace('-', "_");
            if !std::path::Path::new("/sys/module").join(name).exists() {
                busybox(&["insmod", &format!("/modules/{module}")]);
            }
        }
        std::fs::write("/sys/block/zram0/disksize", "256M").expect("size zram");
        busybox(&["mkswap", "/dev/zram0"]);
        busybox(&["swapoff", "/dev/vdb"]);
        busybox(&["swapon", "/dev/zram0"]);
        Self
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
