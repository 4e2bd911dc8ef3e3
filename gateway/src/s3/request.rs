//! One call to the store: as many attempts as its time limit allows.
//!
//! The SDK's own retries are off. A conditional write that is repeated may fail because its first
//! attempt has won, so whoever repeats must remember that an earlier attempt was left unsure; the
//! SDK does not say. And three attempts are not enough for a store that restarts, while a time
//! limit is what the caller of `close()` understands.
//!
//! The limit begins when the first attempt is let go, not while it queues for a permit. Between
//! attempts the call waits a random time, "full jitter", that doubles each time, and holds no
//! permit meanwhile.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ackfs_cache::store::{StoreError, StoreErrorKind};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::call::CallSpec;
use super::checksum::SumKind;
use super::core::Core;
use super::error::{RequestFailure, Retry};
use super::permits::Permit;
use super::stats::Outcome;

/// How often an answer that made no sense is asked for again.
const FEW_MAX: u32 = 3;

/// The longest first wait between attempts; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The same when the store asked for fewer requests.
const BACKOFF_THROTTLED_FIRST: Duration = Duration::from_millis(200);

/// How a call ended.
#[derive(Debug)]
pub(super) struct CallEnd<T> {
    /// What the last attempt gave.
    pub(super) result: Result<T, RequestFailure>,
    /// Whether an attempt that gave no good answer may have been carried out by the store.
    pub(super) unsure: bool,
}

impl<T> CallEnd<T> {
    /// A call that failed before anything was sent.
    pub(super) fn unsent(error: StoreError) -> Self {
        Self {
            result: Err(error.into()),
            unsure: false,
        }
    }

    /// The same after an earlier call that was left `unsure`.
    pub(super) fn after(mut self, unsure: bool) -> Self {
        self.unsure |= unsure;
        self
    }

    /// The result, for calls that are the same however often they are carried out.
    pub(super) fn into_result(self) -> Result<T, StoreError> {
        self.result.map_err(|failure| failure.error)
    }
}

impl Core {
    /// Makes attempts by `attempt` until one ends the call. Waits for the store.
    pub(super) async fn run<T, F, A>(&self, call: CallSpec<'_>, mut attempt: A) -> CallEnd<T>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, RequestFailure>>,
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
    pub(super) async fn run_holding<T, F, A>(
        &self,
        call: CallSpec<'_>,
        mut attempt: A,
    ) -> CallEnd<T>
    where
        A: FnMut(Permit) -> F,
        F: Future<Output = Result<T, RequestFailure>>,
    {
        let mut progress = CallProgress::new(call);
        loop {
            let permit = self.permits.acquire(call.priority).await;
            let limit = progress.begin(Instant::now());
            // Boxed because the SDK's futures are some 20 kB, which every future around this one
            // would hold and move about.
            let answer = timeout(limit, Box::pin(attempt(permit))).await;
            let latency = progress.began.elapsed();
            let failure = match answer {
                Ok(Ok(value)) => {
                    self.recorder.request(call.kind, Outcome::Ok, latency);
                    return CallEnd {
                        result: Ok(value),
                        unsure: progress.unsure,
                    };
                }
                Ok(Err(failure)) => failure,
                Err(_elapsed) => progress.timed_out(limit),
            };
            let outcome = Outcome::of(&failure);
            match progress.failed(failure, Instant::now()) {
                AfterFailure::Again(wait) => {
                    self.recorder.request(call.kind, Outcome::Retried, latency);
                    sleep(wait).await;
                }
                AfterFailure::Over(failure) => {
                    self.recorder.request(call.kind, outcome, latency);
                    return CallEnd {
                        result: Err(failure),
                        unsure: progress.unsure,
                    };
                }
            }
        }
    }

    /// What `send` gives with the checksum in use, or with the one that every store knows if a custom endpoint
    /// refuses that; takes note if this helped.
    pub(super) async fn with_any_sum<S, F, T>(&self, mut send: S) -> CallEnd<T>
    where
        S: FnMut(SumKind) -> F,
        F: Future<Output = CallEnd<T>>,
    {
        let kind = self.policy.kind();
        let first = send(kind).await;
        match &first.result {
            Err(failure) if self.policy.may_fall_back(kind) && failure.may_dislike_checksum() => {
                let second = send(SumKind::Md5).await;
                if second.result.is_ok() {
                    self.policy.fall_back();
                }
                second.after(first.unsure)
            }
            _ => first,
        }
    }
}

/// How far a call has come.
struct CallProgress<'a> {
    call: CallSpec<'a>,
    /// When the first attempt was let go, and the last one.
    first: Option<Instant>,
    began: Instant,
    attempts: u32,
    /// Answers that made no sense.
    few: u32,
    /// Whether an attempt may have been carried out although no good answer came.
    unsure: bool,
    /// Whether the attempt under way gets less time than one should have, because the call's ends.
    short: bool,
    /// Why the attempt before failed.
    earlier: Option<RequestFailure>,
}

/// What comes after an attempt that failed.
enum AfterFailure {
    /// Another one, after this time.
    Again(Duration),
    /// Nothing: this is why the call failed.
    Over(RequestFailure),
}

impl<'a> CallProgress<'a> {
    fn new(call: CallSpec<'a>) -> Self {
        Self {
            call,
            first: None,
            began: Instant::now(),
            attempts: 0,
            few: 0,
            unsure: false,
            short: false,
            earlier: None,
        }
    }

    fn deadline(&self) -> Instant {
        self.first.unwrap_or(self.began) + self.call.limit
    }

    /// Another attempt begins. Gives how long it may take.
    fn begin(&mut self, now: Instant) -> Duration {
        self.first.get_or_insert(now);
        self.began = now;
        self.attempts += 1;
        let left = self.deadline().duration_since(now);
        self.short = left < self.call.attempt_limit;
        self.call.attempt_limit.min(left)
    }

    fn timed_out(&mut self, limit: Duration) -> RequestFailure {
        // What had little time because others failed is not what is wrong.
        let earlier = self.earlier.take().filter(|_| self.short);
        self.unsure = true;
        earlier.unwrap_or_else(|| RequestFailure::timeout(limit))
    }

    /// The attempt failed: whether there is another one.
    fn failed(&mut self, mut failure: RequestFailure, now: Instant) -> AfterFailure {
        self.unsure |= failure.unsure;
        self.few += u32::from(failure.retry == Retry::Few);
        let again = match failure.retry {
            Retry::UntilDeadline => true,
            Retry::Few => self.few < FEW_MAX,
            Retry::Never => false,
        };
        let throttled = failure.error.kind == StoreErrorKind::Throttled;
        let wait = backoff(self.attempts, throttled);
        if again && now + wait < self.deadline() {
            debug!(
                kind = self.call.kind.as_str(),
                key = self.call.key.map(tracing::field::debug),
                attempts = self.attempts,
                wait = ?wait,
                error = %failure.error,
                "store request failed and is sent again"
            );
            self.earlier = Some(failure);
            return AfterFailure::Again(wait);
        }
        failure.error.key = self.call.key.cloned();
        if self.attempts > 1 {
            failure.error.message = format!(
                "{}; gave up after {} attempts in {:.1?}",
                failure.error.message,
                self.attempts,
                now.duration_since(self.first.unwrap_or(self.began)),
            );
        }
        AfterFailure::Over(failure)
    }
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
