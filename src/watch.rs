//! Watching cgroups and reclaiming ahead of their limits.
//!
//! Data flows one way: sample → [policy](policy::headroom) → [guards](policy::guard) →
//! action → event. Policies and guards are pure functions of samples; only the control loop has
//! threads and a clock.

mod account;
pub mod action;
mod ancestors;
pub mod blind;
pub mod config;
mod context;
mod control;
pub mod counters;
mod courtesy;
mod dispatcher;
pub mod event;
pub mod folding;
mod host;
mod hurry;
mod kernel;
pub mod killers;
mod kswapd;
mod level;
mod limits;
mod member;
pub mod members;
pub mod meter;
mod muted;
pub mod notes;
pub mod options;
pub mod policy;
mod poller;
mod probe;
mod rejected;
mod schedule;
#[cfg(test)]
mod sim;
mod swap_changes;
mod swap_monitor;
mod system;
mod worker;
