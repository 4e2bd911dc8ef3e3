//! One call to the store: as many attempts as its time limit allows.
//!
//! The SDK's own retries are off. A conditional write that is repeated may fail because its first
//! attempt has won, so whoever repeats must remember that an earlier attempt was left unsure; the
//! SDK does not say. And three attempts are not enough for a store that restarts, while a time
//! limit is what the caller of `close()` understands.
//!
//! The limit begins when the first attempt is let go, not while it queues for a permit. Between
//! attempts the call waits a random time, "full jitter", that doubles each time, and holds no
//! permit meanwhile. One attempt has a third of the time limit at most, so that a connection that
//! hangs leaves time for another one.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ackfs_cache::object::Key;
use ackfs_cache::store::{Priority, StoreError, StoreErrorKind};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::core::Core;
use super::error::{Failure, Retry};
use super::permits::Permit;
use super::stats::{Kind, Outcome};

/// How often an answer that made no sense is asked for again.
const FEW_MAX: u32 = 3;

/// The longest first wait between attempts; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The same when the store asked for fewer requests.
const BACKOFF_THROTTLED_FIRST: Duration = Duration::from_millis(200);

/// The most that one attempt waits for an answer, its body's time aside.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

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
pub(super) struct Call<'a> {
    pub(super) kind: Kind,
    pub(super) key: Option<&'a Key>,
    pub(super) priority: Priority,
    /// What the whole call may take.
    pub(super) limit: Duration,
    /// What one attempt may take.
    pub(super) attempt_limit: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended<T> {
    /// What the last attempt gave.
    pub(super) result: Result<T, Failure>,
    /// Whether an attempt that gave no good answer may have been carried out by the store.
    pub(super) unsure: bool,
}

impl<T> Ended<T> {
    /// A call that failed before anything was sent.
    pub(super) fn unsent(error: StoreError) -> Self {
        Self {
            result: Err(error.into()),
            unsure: false,
        }
    }

    /// The result, for calls that are the same however often they are carried out.
    pub(super) fn settle(self) -> Result<T, StoreError> {
        self.result.map_err(|failure| failure.error)
    }
}

impl Core {
    /// A call of `kind` without a body.
    pub(super) fn call<'a>(&self, kind: Kind, key: &'a Key) -> Call<'a> {
        self.call_any(kind, Some(key))
    }

    /// The same about no key.
    pub(super) fn call_any<'a>(&self, kind: Kind, key: Option<&'a Key>) -> Call<'a> {
        let limit = self.config.store_timeout;
        Call {
            kind,
            key,
            priority: Priority::Interactive,
            limit,
            attempt_limit: attempt_limit(limit),
        }
    }

    /// A call that sends `len` bytes.
    pub(super) fn upload_call<'a>(&self, kind: Kind, key: &'a Key, len: u64) -> Call<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / RATE_MIN);
        let limit = self.config.store_timeout;
        Call {
            kind,
            key: Some(key),
            priority: Priority::Upload,
            limit: limit + more,
            attempt_limit: attempt_limit(limit) + more,
        }
    }

    /// A call that makes the store move `len` bytes by itself.
    pub(super) fn copy_call<'a>(&self, kind: Kind, key: &'a Key, len: u64) -> Call<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / COPY_RATE_MIN);
        let limit = self.config.store_timeout + more;
        Call {
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
    pub(super) fn part_copy_call<'a>(&self, key: &'a Key, len: u64) -> Call<'a> {
        let more = Duration::from_millis(len.saturating_sub(FREE_LEN) * 1000 / PART_COPY_RATE_MIN);
        let limit = self.config.store_timeout;
        Call {
            kind: Kind::CopyPart,
            key: Some(key),
            priority: Priority::Upload,
            limit: limit + 2 * more,
            attempt_limit: attempt_limit(limit) + more,
        }
    }

    /// Makes attempts by `attempt` until one ends the call. Waits for the store.
    pub(super) async fn run<T, F, A>(&self, call: Call<'_>, mut attempt: A) -> Ended<T>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        self.run_holding(call, |permit| {
            let answer = attempt();
            async move {
                let _permit = permit;
                answer.await
            }
        })
        .await
    }

    /// The same where each attempt is given its permit and may keep it beyond its answer.
    pub(super) async fn run_holding<T, F, A>(&self, call: Call<'_>, mut attempt: A) -> Ended<T>
    where
        A: FnMut(Permit) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let mut first = None;
        let mut earlier = None;
        let mut unsure = false;
        let mut attempts = 0;
        let mut few = 0;
        loop {
            let permit = self.permits.acquire(call.priority).await;
            let began = Instant::now();
            let first = *first.get_or_insert(began);
            let deadline = first + call.limit;
            let limit = call.attempt_limit.min(deadline.duration_since(began));
            attempts += 1;
            // Boxed because the SDK's futures are some 20 kB, which every future around this one
            // would hold and move about.
            let result = timeout(limit, Box::pin(attempt(permit))).await;
            let cut = result.is_err() && limit < call.attempt_limit;
            let result = match result {
                Ok(result) => result,
                Err(_elapsed) => Err(Failure::timeout(limit)),
            };
            let latency = began.elapsed();
            let mut failure = match result {
                Ok(value) => {
                    self.recorder.request(call.kind, Outcome::Ok, latency);
                    return Ended {
                        result: Ok(value),
                        unsure,
                    };
                }
                Err(failure) => failure,
            };
            unsure |= failure.unsure;
            few += u32::from(failure.retry == Retry::Few);
            let again = match failure.retry {
                Retry::UntilDeadline => true,
                Retry::Few => few < FEW_MAX,
                Retry::Never => false,
            };
            let wait = backoff(attempts, failure.error.kind == StoreErrorKind::Throttled);
            if !again || Instant::now() + wait >= deadline {
                let outcome = Outcome::of(&failure);
                self.recorder.request(call.kind, outcome, latency);
                // What had little time because others failed is not what is wrong.
                failure = earlier.filter(|_| cut).unwrap_or(failure);
                failure.error.key = call.key.cloned();
                if attempts > 1 {
                    failure.error.message = format!(
                        "{}; gave up after {attempts} attempts in {:.1?}",
                        failure.error.message,
                        first.elapsed(),
                    );
                }
                return Ended {
                    result: Err(failure),
                    unsure,
                };
            }
            self.recorder.request(call.kind, Outcome::Retried, latency);
            debug!(
                kind = call.kind.as_str(),
                key = call.key.map(tracing::field::debug),
                attempts,
                wait = ?wait,
                error = %failure.error,
                "store request failed and is sent again"
            );
            earlier = Some(failure);
            sleep(wait).await;
        }
    }
}

fn attempt_limit(limit: Duration) -> Duration {
    (limit / 3).min(ATTEMPT_MAX)
}

/// How long to wait before the next attempt: anything up to a bound that doubles, so that clients
/// that failed together do not come back together.
pub(super) fn backoff(attempts: u32, throttled: bool) -> Duration {
    let first = if throttled {
        BACKOFF_THROTTLED_FIRST
    } else {
        BACKOFF_FIRST
    };
    let most = first
        .saturating_mul(1 << attempts.saturating_sub(1).min(10))
        .min(BACKOFF_MAX);
    most.mul_f64(random() as f64 / u64::MAX as f64)
}

/// A number that nobody can foresee; not for secrets.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_is_bounded_and_differs() {
        let mut seen = std::collections::HashSet::new();
        for attempts in 1..100 {
            let most = BACKOFF_FIRST * 2u32.pow(attempts.min(8) - 1);
            let wait = backoff(attempts, false);
            assert!(wait <= most.min(BACKOFF_MAX), "{attempts}: {wait:?}");
            seen.insert(wait);
        }
        assert!(seen.len() > 90);
    }
}
