//! A client that sends requests at a rate, in a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::latency::Latencies;

pub struct Client {
    thread: JoinHandle<Result<Latencies>>,
    ends: Arc<AtomicBool>,
}

impl Client {
    /// Begins to send a request `each` so often, to a connection that the thread opens.
    pub fn begin<R: FnMut() -> Result<()>>(
        each: Duration,
        open: impl FnOnce() -> Result<R> + Send + 'static,
    ) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut request = open()?;
            let (mut latencies, mut due) = (Latencies::default(), Instant::now());
            while !ended.load(Ordering::Relaxed) {
                request()?;
                // From when it was due: a request that waits for a slow one is slow itself.
                latencies.add(SystemTime::now(), due.elapsed());
                due += each;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(latencies)
        });
        Self { thread, ends }
    }

    pub fn end(self) -> Result<Latencies> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the client")?
    }
}
