//! Names that somebody overwrites while they are opened here. The version that a look-up showed is gone when the
//! file is opened, or when it is first read; the kernel tries an open once more and not a third time
//! ([`look_again`](crate::fs::error::look_again)), so open(2) failed where a file was replaced twice in that
//! time.
//!
//! Here it is only remembered which names these are, for a while. What follows from it is `ops/open`'s: an
//! OPEN that only reads shows the newest version on the inode that it came for, if nobody else has that open,
//! and brings the bytes of a small one here before it is answered. The kernel holds another size then, which no
//! answer to OPEN can change, so such a handle is read past the page cache (FOPEN_DIRECT_IO) and the kernel's
//! attributes are expired. Nothing rests on this memory but that the second try of an open succeeds.
//!
//! Readers that open, read and close for four seconds, beside a client that puts another version 72 times a
//! second, with a TTL of one second: opens a second; opens and reads of them that failed with ESTALE; HEADs an
//! open. On the left one reader and a store 8 ms away, on the right three readers and a store 3 ms away:
//!
//! ```text
//! each missed version is ESTALE                37/s  72 %  27 %  2.0    130/s  43 %  22 %  1.9
//! look-ups that ask, believed for 100 ms        9/s   0 %  30 %  5.4     98/s   0 %   0 %  2.7
//! past the page cache                          17/s   0 %  25 %  2.7    190/s   0 %   0 %  1.1
//! ```
//! The same through the page cache gave bytes of two versions: what the kernel holds of the old size and of
//! the old pages is brought up to date by answers that may reach it in another order.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

/// For how long a name is contended after the last time that one of its versions was missed.
const CONTENDED_FOR: Duration = Duration::from_secs(10);
/// How many names may be; beyond that the one that was asked for least is as any other.
const NAMES_MAX: u64 = 1000;

/// See the module. All methods take `&self` and never wait.
#[derive(Debug)]
pub(in crate::fs) struct ContendedNames(Cache<(u64, Arc<str>), ()>);

impl Default for ContendedNames {
    fn default() -> Self {
        let names = Cache::builder()
            .max_capacity(NAMES_MAX)
            .time_to_live(CONTENDED_FOR);
        Self(names.build())
    }
}

impl ContendedNames {
    /// A version of the name was missed: it was another one that was there.
    pub(in crate::fs) fn missed(&self, dir: u64, name: &Arc<str>) {
        self.0.insert((dir, name.clone()), ());
    }

    /// Whether a version of the name was missed lately.
    pub(in crate::fs) fn holds(&self, dir: u64, name: &str) -> bool {
        self.0.contains_key(&(dir, name.into()))
    }
}
