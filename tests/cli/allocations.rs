//! A counting allocator, for code that must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Number of allocations whose origin is kept.
const MAX_TRACES: usize = 4;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TRACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread allocates for a trace.
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether the allocations of all threads are counted.
pub fn count(counting: bool) {
    COUNTING.store(counting, Ordering::SeqCst);
}

/// Returns the number of allocations, and the origins of the first ones.
pub fn counted() -> (usize, Vec<String>) {
    let traces = std::mem::take(&mut *TRACES.lock().expect("no thread panics with it"));
    (COUNT.swap(0, Ordering::SeqCst), traces)
}

fn record() {
    if !COUNTING.load(Ordering::SeqCst) || TRACING.try_with(|it| it.replace(true)) != Ok(false) {
        return;
    }
    if COUNT.fetch_add(1, Ordering::SeqCst) < MAX_TRACES {
        let trace = Backtrace::force_capture().to_string();
        TRACES.lock().expect("no thread panics with it").push(trace);
    }
    TRACING.with(|it| it.set(false));
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; what recording allocates
// comes from there too, and isn't recorded.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record();
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory was allocated there.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        record();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
