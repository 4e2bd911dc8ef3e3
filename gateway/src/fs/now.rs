//! The clocks as they were when a request came in. They are read at the door of its verb and passed on, so
//! that one request has one time. A task that waited for the store reads them anew where it goes on, and says so.

use std::time::{Instant, SystemTime};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(in crate::fs) struct Now {
    /// What ages are counted from.
    pub(in crate::fs) instant: Instant,
    /// What times of files are set to.
    pub(in crate::fs) clock: SystemTime,
}

impl Now {
    /// Reads the clocks.
    pub(in crate::fs) fn read() -> Self {
        Self {
            instant: Instant::now(),
            clock: SystemTime::now(),
        }
    }
}
