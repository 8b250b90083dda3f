//! A client that sends requests at a rate, in a thread, and what services of values have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::Loaded;
use super::latency::Latencies;
use super::service::Service;

/// Bytes of a value, and values of a request.
pub const VALUE: usize = 2048;
pub const AT_ONCE: usize = 20;

/// Distance of values read one after the other: a prime, so that all have their turn.
pub const STRIDE: usize = 7919;

/// Returns the time between two requests by which each of the values in use is read each 30 s.
pub const fn each(used: usize) -> Duration {
    Duration::from_millis((30_000 * AT_ONCE / used) as u64)
}

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

/// A service and its client.
pub struct Served {
    pub server: Service,
    pub client: Client,
}

impl Loaded for Served {
    fn end(self: Box<Self>) -> Result<Latencies> {
        let latencies = self.client.end()?;
        self.server.end()?;
        Ok(latencies)
    }
}
