//! The flag by which the control loop tells actions in progress that others wait: those don't pause
//! then, but end as a slice and go on later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the control loop and the workers share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hurry(Arc<AtomicBool>);

impl Hurry {
    /// Sets or clears the flag.
    pub(crate) fn set(&self, others_wait: bool) {
        self.0.store(others_wait, Ordering::Relaxed);
    }

    /// Returns whether others wait.
    #[must_use]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
