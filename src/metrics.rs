//! Receivers of metrics: a file for node exporter's textfile collector, and scrapers over HTTP.

mod file;
mod file_task;
mod http;
mod memory;
mod peer;
mod receivers;
mod request;
mod serve;

pub use receivers::{Required, WatchMetrics};
