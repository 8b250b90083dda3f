//! Processes that use memory inside a cgroup: this test binary, run again under another name.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::fs::Advice;

/// Memory use of a process. Sizes are bytes.
#[derive(Clone, Debug)]
pub enum Work {
    /// Reads a file of its own, once: page cache, page by page.
    File(u64),
    /// Reads a file as usual in practice: with readahead, and so in large folios where the kernel
    /// has them.
    Folios(u64),
    /// Fills anonymous memory.
    Anon(u64),
    /// Fills and locks anonymous memory.
    Locked(u64),
    /// Fills huge pages, which must have been reserved.
    Huge(u64),
    /// Fills anonymous memory, then allocates and frees as much again and again.
    Sawtooth(u64),
    /// Reads a file over and over, dropping nothing itself.
    Stream(u64),
    /// The same at some 20 MiB/s.
    Trickle(u64),
    /// Maps a file, and touches every page of it over and over: page cache in use, to every kernel.
    Mapped(u64),
    /// Looks up names that don't exist: dentries, and next to nothing on the LRU lists.
    Dentries(u64),
    /// Fills anonymous memory, and frees it as soon as the cgroup's usage falls by 2 MiB.
    GivesBack(u64),
}

const MARK: &str = "memctl-test-workload";

/// Returns the work for which this process was started, if it was.
pub fn asked_for() -> Option<Asked> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == MARK).then_some(())?;
    let (kind, bytes, cgroup) =
        (args.next()?, args.next()?.to_str()?.parse().ok()?, PathBuf::from(args.next()?));
    let work = match kind.to_str()? {
        "file" => Work::File(bytes),
        "folios" => Work::Folios(bytes),
        "anon" => Work::Anon(bytes),
        "locked" => Work::Locked(bytes),
        "huge" => Work::Huge(bytes),
        "sawtooth" => Work::Sawtooth(bytes),
        "stream" => Work::Stream(bytes),
        "trickle" => Work::Trickle(bytes),
        "mapped" => Work::Mapped(bytes),
        "dentries" => Work::Dentries(bytes),
        "gives-back" => Work::GivesBack(bytes),
        _ => return None,
    };
    Some(Asked { work, cgroup })
}

pub struct Asked {
    work: Work,
    cgroup: PathBuf,
}

impl Asked {
    /// Enters the cgroup, does the work, reports its end, and stays until stdin closes.
    pub fn run(self) {
        std::fs::write(self.cgroup.join("cgroup.procs"), "0").expect("enter the cgroup");
        let held = match self.work {
            Work::File(bytes) => {
                read_file(&own_file(bytes), Advice::Random);
                Vec::new()
            }
            Work::Folios(bytes) => {
                read_file(&own_file(bytes), Advice::Normal);
                Vec::new()
            }
            Work::Anon(bytes) => filled(bytes),
            Work::Locked(bytes) => locked(bytes),
            Work::Huge(bytes) => {
                fill_huge(bytes);
                Vec::new()
            }
            Work::Sawtooth(bytes) => {
                std::thread::spawn(move || {
                    loop {
                        drop(filled(bytes));
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
                filled(bytes)
            }
            Work::Stream(bytes) => {
                let path = own_file(bytes);
                std::thread::spawn(move || {
                    loop {
                        read_file(&path, Advice::Normal);
                    }
                });
                Vec::new()
            }
            Work::Trickle(bytes) => {
                let path = own_file(bytes);
                std::thread::spawn(move || trickle(&path));
                Vec::new()
            }
            Work::Mapped(bytes) => {
                let path = own_file(bytes);
                std::thread::spawn(move || touch_for_ever(&path, bytes));
                Vec::new()
            }
            Work::Dentries(bytes) => {
                look_up(bytes);
                Vec::new()
            }
            Work::GivesBack(bytes) => {
                let (memory, current) = (filled(bytes), self.cgroup.join("memory.current"));
                std::thread::spawn(move || give_back(memory, &current));
                Vec::new()
            }
        };
        println!("ready");
        let _ = std::io::stdin().read(&mut [0]);
        drop(held);
    }
}

/// Creates a file of its own, all holes: read, it becomes page cache like any other.
fn own_file(bytes: u64) -> PathBuf {
    let path = PathBuf::from(format!("/data/file.{}", std::process::id()));
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("make a file on /data");
    path
}

fn read_file(path: &PathBuf, advice: Advice) {
    let mut file = File::open(path).expect("open the file");
    rustix::fs::fadvise(&file, 0, None, advice).expect("advise the kernel");
    let mut buffer = vec![0; 256 << 10];
    while file.read(&mut buffer).expect("read the file") > 0 {}
}

fn trickle(path: &PathBuf) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut file = File::open(path).expect("open the file");
        while file.read(&mut buffer).expect("read the file") > 0 {
            std::thread::sleep(Duration::from_millis(12));
        }
    }
}

/// Creates negative dentries: each missing name leaves one of 192 bytes, and its name in 256 more,
/// since it is long. The file system is on a disk: tmpfs keeps no negative dentries.
fn look_up(bytes: u64) {
    let long = "n".repeat(180);
    for number in 0..bytes / (192 + 256) {
        let name = format!("/data/{long}.{}.{number}", std::process::id());
        assert!(!PathBuf::from(name).exists());
    }
}

/// Waits for the usage to fall, and only for that: it rises first.
fn give_back(memory: Vec<u8>, current: &std::path::Path) {
    let usage = || -> u64 {
        let text = std::fs::read_to_string(current).expect("read memory.current");
        text.trim().parse().expect("a number")
    };
    let mut most = usage();
    while usage() + (2 << 20) > most {
        most = most.max(usage());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(memory);
}

fn touch_for_ever(path: &PathBuf, bytes: u64) {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    // Read twice, the file is active: 6.1 counts only pages that were active at eviction among the
    // restores.
    (0..2).for_each(|_| read_file(path, Advice::Normal));
    let file = File::open(path).expect("open the file");
    let (flags, len) = (MapFlags::SHARED, bytes as usize);
    // SAFETY: the kernel picks the place, the file is never cut short while this process lives, and
    // nothing unmaps it.
    let memory =
        unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, &file, 0) }.expect("map the file");
    loop {
        for offset in (0..len).step_by(4096) {
            // SAFETY: within the mapping, as above.
            unsafe { memory.cast::<u8>().add(offset).read_volatile() };
        }
        // Long enough for reclaim to progress in between: 6.1 can't evict memory that is touched
        // all the time.
        std::thread::sleep(Duration::from_millis(400));
    }
}

/// Returns memory without pages of zeroes and without identical pages, which a kernel could merge.
fn filled(bytes: u64) -> Vec<u8> {
    let mut memory = vec![0u8; bytes as usize];
    for (page, number) in memory.chunks_mut(4096).zip(1u64..) {
        for (word, salt) in page.chunks_exact_mut(8).step_by(8).zip(0u64..) {
            word.copy_from_slice(&(number * 0x9E37_79B9 + salt).to_le_bytes());
        }
    }
    memory
}

fn locked(bytes: u64) -> Vec<u8> {
    let memory = filled(bytes);
    // SAFETY: the range is the allocation just made, which outlives the lock: it is held until the
    // process ends.
    unsafe { rustix::mm::mlock(memory.as_ptr().cast_mut().cast(), memory.len()) }.expect("lock the memory");
    memory
}

/// Fills huge pages; the mapping lives as long as the process.
fn fill_huge(bytes: u64) {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let (flags, len) = (MapFlags::PRIVATE | MapFlags::HUGETLB, bytes as usize);
    // SAFETY: the kernel picks the place, and nothing unmaps it.
    let memory =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .expect("map huge pages");
    // SAFETY: the range is the mapping just made.
    unsafe { memory.cast::<u8>().write_bytes(1, len) };
}

/// A running process with its work done.
pub struct Workload {
    child: Child,
    _stdin: ChildStdin,
}

impl Workload {
    /// Starts the work in a cgroup, and waits until it is done.
    pub fn start(work: &Work, cgroup: &std::path::Path) -> Self {
        let (kind, bytes) = match *work {
            Work::File(bytes) => ("file", bytes),
            Work::Folios(bytes) => ("folios", bytes),
            Work::Anon(bytes) => ("anon", bytes),
            Work::Locked(bytes) => ("locked", bytes),
            Work::Huge(bytes) => ("huge", bytes),
            Work::Sawtooth(bytes) => ("sawtooth", bytes),
            Work::Stream(bytes) => ("stream", bytes),
            Work::Trickle(bytes) => ("trickle", bytes),
            Work::Mapped(bytes) => ("mapped", bytes),
            Work::Dentries(bytes) => ("dentries", bytes),
            Work::GivesBack(bytes) => ("gives-back", bytes),
        };
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([MARK, kind, &bytes.to_string()])
            .arg(cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a workload");
        let stdin = child.stdin.take().expect("a pipe");
        let mut said = [0; 6];
        let _ = std::io::stdout().flush();
        child.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("the workload is ready");
        assert_eq!(&said, b"ready\n");
        Self { child, _stdin: stdin }
    }
}

impl Workload {
    /// Returns the path of the file for its work, which not every work creates.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(format!("/data/file.{}", self.child.id()))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
