//! A process with the shape of a virtual machine's: its memory is shared memory that is mapped, a
//! thread in the place of a processor touches some of it all the time, and a thread for I/O reads its
//! disk's image into it. A guest in a guest that is emulated itself doesn't boot in a usable time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::latency::Latencies;
use super::{App, Loaded};
use crate::M;
use crate::load::advance;

const IMAGE: &str = "/data/vmm.img";

/// Bytes of the machine's memory, of what the processor uses, of the buffers behind that, and of the
/// image.
const MEMORY: usize = 384 << 20;
const USED: usize = 64 << 20;
const BUFFERS: usize = 32 << 20;
const IMAGE_SIZE: u64 = 512 << 20;

const PAGE: usize = 4096;

/// Pages that the processor touches at a time, at random, and the pause after that.
const BATCH: usize = 128;
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of a read of the disk, and time between two: the image is read once in 41 s, and again.
const READ: usize = 256 << 10;
const EACH: Duration = Duration::from_millis(20);

pub struct Vmm;

impl App for Vmm {
    fn name(&self) -> &'static str {
        "vmm"
    }

    fn begin(&self, cgroup: &Path, _all: bool) -> Result<Box<dyn Loaded>> {
        if !Path::new(IMAGE).exists() {
            let image = File::create(IMAGE)?;
            let piece = vec![0x5a; M as usize];
            for at in 0..IMAGE_SIZE / M {
                image.write_all_at(&piece, at * M)?;
            }
            image.sync_all()?;
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        }
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1/cgroup.procs\"; exec \"$0\" vmm \"$2\""])
            .arg(std::env::current_exe()?)
            .arg(cgroup)
            .arg(IMAGE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("its input")?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?).lines();
        let first = said.next().context("the machine ended")??;
        ensure!(first == "ready", "the machine said {first:?}");
        let reads = std::thread::spawn(move || {
            let mut latencies = Latencies::default();
            for line in said {
                let took = Duration::from_micros(line?.parse().context("a time of the machine's")?);
                latencies.add(SystemTime::now(), took);
            }
            Ok(latencies)
        });
        Ok(Box::new(Running { child, input, reads }))
    }
}

struct Running {
    child: Child,
    input: ChildStdin,
    reads: JoinHandle<Result<Latencies>>,
}

impl Loaded for Running {
    fn end(mut self: Box<Self>) -> Result<Latencies> {
        drop(self.input);
        self.child.wait()?;
        self.reads.join().ok().context("its reads")?
    }
}

/// Memory that is mapped, and shared with the threads.
#[derive(Clone, Copy)]
struct Mapped(*mut u8);

// SAFETY: it is mapped as long as the process runs, and its bytes are only accessed through pointers,
// volatile, in two parts of which each is one thread's.
unsafe impl Send for Mapped {}

/// Runs the machine until its input ends. Prints how long each read of the disk took, in microseconds.
pub fn run(image: &Path) -> Result<()> {
    let memory = rustix::fs::memfd_create("vmm", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memory, MEMORY as u64)?;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe {
        mmap(std::ptr::null_mut(), MEMORY, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &memory, 0)
    }?;
    let mapped = Mapped(start.cast());
    for page in 0..MEMORY / PAGE {
        touch(mapped, page);
    }
    let image = File::open(image)?;
    println!("ready");
    std::thread::spawn(move || process(mapped));
    std::thread::spawn(move || {
        if let Err(error) = read_disk(mapped, &image) {
            eprintln!("the machine's disk: {error:#}");
            std::process::exit(1);
        }
    });
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

fn touch(Mapped(start): Mapped, page: usize) {
    assert!(page < MEMORY / PAGE, "{page} is beyond the memory");
    // SAFETY: within the mapping, by the assertion; a thread writes to its own part only.
    unsafe {
        let at = start.add(page * PAGE);
        at.write_volatile(at.read_volatile().wrapping_add(1));
    }
}

fn copy(piece: &[u8], Mapped(start): Mapped, at: usize) {
    assert!(at >= USED && at + piece.len() <= USED + BUFFERS, "{at} is in no buffer");
    // SAFETY: within the mapping, by the assertion and as the buffers are; only the thread that calls
    // this has pointers to them.
    unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), start.add(at), piece.len()) };
}

/// The processor: touches pages of its part at random.
fn process(mapped: Mapped) {
    let mut random = 1u64;
    loop {
        for _ in 0..BATCH {
            advance(&mut random);
            touch(mapped, (random >> 33) as usize % (USED / PAGE));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The thread for I/O: reads the image through the page cache, into one buffer after the other.
fn read_disk(mapped: Mapped, image: &File) -> Result<()> {
    let mut output = std::io::stdout().lock();
    let (mut offset, mut due, mut piece) = (0, Instant::now(), vec![0; READ]);
    loop {
        image.read_exact_at(&mut piece, offset)?;
        copy(&piece, mapped, USED + offset as usize % BUFFERS);
        offset = (offset + READ as u64) % IMAGE_SIZE;
        // From when it was due: a read that waits for a slow one is slow itself.
        writeln!(output, "{}", due.elapsed().as_micros())?;
        due += EACH;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
