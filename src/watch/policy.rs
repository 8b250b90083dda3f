//! The policies of a watch: they decide from samples what to reclaim, when, and what holds reclaim
//! back. Pure functions: they do no I/O and read no clock.

pub mod above;
pub mod arrival;
pub mod backoff;
pub mod brake;
pub mod cache_seen;
pub mod cpu_budget;
pub mod guard;
pub mod headroom;
pub mod hold;
pub mod lock;
pub mod pressure;
pub mod refaults;
pub mod reuse;
pub mod sampling_interval;
pub mod savings;
pub mod shares;
pub mod swap_queue;
pub mod trial;
pub mod working_set;
