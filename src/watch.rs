//! Watching cgroups and reclaiming ahead of their limits.
//!
//! Data flows one way: sample → [policy](policy::headroom) → [guards](policy::guard) →
//! action → event. Policies and guards are pure functions of samples; only the [control
//! loop](control) has threads and a clock.

mod account;
pub mod action;
pub mod config;
pub mod control;
pub mod event;
pub mod host;
pub mod killers;
pub mod level;
pub mod limits;
pub mod member;
pub mod notes;
pub mod options;
pub mod policy;
mod poller;
pub mod probe;
pub mod swap_monitor;
mod worker;
