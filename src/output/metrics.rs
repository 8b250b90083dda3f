//! Metrics in the text format of Prometheus, version 0.0.4.

mod labels;
mod names;
pub mod stat;
mod text;
pub mod watch;
