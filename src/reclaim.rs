//! Memory reclaim: one request and its report ([`run()`]), many requests at the same time
//! ([`batch`]), and the forecast of a request ([`Plan`]).

pub mod batch;
mod chunk;
mod cost;
mod ledger;
mod obstacle;
mod overshoot;
mod place;
mod plan;
pub mod pool;
mod progress;
mod rate;
mod report;
mod request;
mod run;
mod settle;
pub mod share;
#[cfg(test)]
pub(crate) mod sim;
mod stalls;
mod subject;
mod swap_out;
mod target;
#[cfg(test)]
mod tests;

pub use chunk::Pace;
pub use ledger::{Measure, Measured, Measures};
pub use obstacle::Obstacle;
pub use overshoot::Overshot;
pub use place::OpenTarget;
pub use plan::{Blocker, Plan, Reclaimable, TotalPlan, share_rate};
pub use rate::Rate;
pub use report::{Report, StoppedBy, Verdict};
pub use request::{Alarm, Goal, LARGE_FOLIO, Refusal, Request, Tolerance};
pub(crate) use run::run_after;
pub use run::{RequestEvent, run};
pub use settle::{Activity, Refaulted, Settled};
pub use stalls::RecentStalls;
pub use subject::TargetKind;
pub use target::Target;
