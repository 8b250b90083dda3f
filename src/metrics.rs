//! Receivers of metrics: a file for node exporter's textfile collector, and scrapers over HTTP.

mod file;
mod http;
mod peer;
mod receivers;
mod request;
mod rules_file;
mod serve;

pub use receivers::{Required, WatchMetrics};
pub use rules_file::Stamp;
