//! What one call to the store may take: its priority, its time, and that of one attempt.
//!
//! `--store-timeout` bounds a call, retries included; bytes that are moved get more by their number, at the
//! slowest rate that is waited for. One attempt has a third of the limit at most, so that a connection that
//! hangs leaves time for another one.

use std::time::Duration;

use ackfs_cache::object::Key;
use ackfs_cache::store::Priority;

use super::core::Core;
use super::stats::RequestKind;

/// The most that one attempt waits for an answer, its body's time aside.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// How long a mount waits for a store that does not answer before it gives up.
const CHECK_MAX: Duration = Duration::from_secs(15);

/// Bytes that need no time of their own.
const FREE_LEN: u64 = 1 << 20;

/// The slowest link that uploads are made for, bytes a second.
const RATE_MIN: u64 = 256 << 10;

/// The slowest server-side copy or completion that is waited for, bytes a second.
const COPY_RATE_MIN: u64 = 32 << 20;

/// The same for the copy of a part, which is asked for again when it takes longer: a minute for 256 MiB.
const PART_COPY_RATE_MIN: u64 = 4 << 20;

/// What is asked, for whom and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallSpec<'a> {
    pub(super) kind: RequestKind,
    pub(super) key: Option<&'a Key>,
    pub(super) priority: Priority,
    /// What the whole call may take.
    pub(super) limit: Duration,
    /// What one attempt may take.
    pub(super) attempt_limit: Duration,
}

impl Core {
    /// A call of `kind` without a body.
    pub(super) fn call<'a>(&self, kind: RequestKind, key: &'a Key) -> CallSpec<'a> {
        self.call_any(kind, Some(key))
    }

    /// The same about no key.
    pub(super) fn call_any<'a>(&self, kind: RequestKind, key: Option<&'a Key>) -> CallSpec<'a> {
        let limit = self.config.store_timeout;
        CallSpec {
            kind,
            key,
            priority: Priority::Interactive,
            limit,
            attempt_limit: attempt_limit(limit),
        }
    }

    /// A call whose answer a mount waits for before it begins: `--store-timeout` is for bytes that are to be
    /// saved.
    pub(super) fn check_call<'a>(&self, kind: RequestKind, key: Option<&'a Key>) -> CallSpec<'a> {
        let limit = self.config.store_timeout.min(CHECK_MAX);
        CallSpec {
            limit,
            attempt_limit: limit,
            ..self.call_any(kind, key)
        }
    }

    /// A call that sends `len` bytes.
    pub(super) fn upload_call<'a>(
        &self,
        kind: RequestKind,
        key: &'a Key,
        len: u64,
    ) -> CallSpec<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / RATE_MIN);
        let limit = self.config.store_timeout;
        CallSpec {
            kind,
            key: Some(key),
            priority: Priority::Upload,
            limit: limit + more,
            attempt_limit: attempt_limit(limit) + more,
        }
    }

    /// A call that makes the store move `len` bytes by itself.
    pub(super) fn copy_call<'a>(&self, kind: RequestKind, key: &'a Key, len: u64) -> CallSpec<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / COPY_RATE_MIN);
        let limit = self.config.store_timeout + more;
        CallSpec {
            kind,
            key: Some(key),
            priority: Priority::Interactive,
            limit,
            attempt_limit: limit,
        }
    }

    /// A call that makes the store copy `len` bytes into a part. It can be carried out any number of
    /// times, so one attempt does not take all the time: a connection that died in silence leaves time for
    /// another whole one.
    pub(super) fn part_copy_call<'a>(&self, key: &'a Key, len: u64) -> CallSpec<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / PART_COPY_RATE_MIN);
        let limit = self.config.store_timeout;
        CallSpec {
            kind: RequestKind::CopyPart,
            key: Some(key),
            priority: Priority::Upload,
            limit: limit + 2 * more,
            attempt_limit: attempt_limit(limit) + more,
        }
    }
}

fn attempt_limit(limit: Duration) -> Duration {
    (limit / 3).min(ATTEMPT_MAX)
}
