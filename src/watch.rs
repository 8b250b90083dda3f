//! Watching cgroups and reclaiming ahead of their limits.
//!
//! Data goes one way: look → [law](headroom) → [guards](guard) → act → event. Laws and guards are pure functions of what
//! they are shown; only the [control loop](control) has threads and a clock.

pub mod above;
mod account;
pub mod act;
pub mod arrival;
pub mod brake;
mod budget;
pub mod control;
pub mod estimate;
pub mod event;
pub mod guard;
pub mod headroom;
pub mod holding;
pub mod host;
pub mod killers;
pub mod level;
pub mod limits;
pub mod member;
pub mod notes;
pub mod options;
pub mod pressing;
pub mod pressure;
mod price;
pub mod rule;
pub mod rules;
pub mod saving;
pub mod shares;
pub mod swap;
mod wakeups;
pub mod words;
mod worker;
