//! Faults on request: the store that lies, stalls and loses answers, as exactly as a test wants it.
//!
//! A [`Rule`] says which requests it means (operation, key or prefix, how many to let pass, how many to hit) and what
//! happens to them, its [`Effect`]. Rules stand in the order in which they were added. When a request arrives every rule
//! that means it takes it, up to the first one whose effect answers in the store's place. [`Faults::add`] gives a
//! [`Fault`], by which a test waits until the rule has struck (`wait_fired`), lets what hangs go on (`release`) and ends
//! it (`remove`): no test needs to sleep.
//!
//! A rule has *fired* when its effect is there for the client or the store to feel: a hang when the request hangs, a lost
//! answer when the write is committed, a changed body when the answer's head is made, a wrong copy when it is made.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::operation::Target;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Waits before the store sees the request.
    DelayBefore(Duration),
    /// Waits after the store has done its work, before the answer.
    DelayAfter(Duration),
    /// Holds the request before the store sees it, until released.
    HangBefore,
    /// Holds the answer after the store has done its work, until released.
    HangAfter,
    /// Answers with an S3 error in the store's place.
    Refuse {
        /// HTTP status.
        status: u16,
        /// `Code` of the error document; HEAD answers have none.
        code: String,
    },
    /// Answers with a redirection in the store's place.
    Redirect {
        /// 301, 302, 307 or 308.
        status: u16,
        /// Where to; `None` is the very same address, which makes a loop.
        location: Option<String>,
    },
    /// Closes the connection before the store sees the request.
    CloseBefore,
    /// Lets the store do its work, then closes the connection without an answer.
    LoseAnswer,
    /// Closes the connection after this many bytes of the answer's body; the head promises all of it.
    CutBody {
        /// Bytes that still go out.
        after: u64,
    },
    /// Stops in the middle of the answer's body until released; the connection stays open.
    StallBody {
        /// Bytes that still go out.
        after: u64,
    },
    /// Flips one bit of a byte of the answer's body.
    CorruptBody {
        /// Which byte; a shorter body is left as it is.
        at: u64,
    },
    /// Makes the answer's body longer (with zeroes) or shorter than it should be, `Content-Length` agreeing with it.
    WrongLength {
        /// Bytes to add, or if negative to take away.
        delta: i64,
    },
    /// Lets the store do its work, then answers 200 with XML that ends in the middle.
    Malformed,
    /// Copies a part wrongly, and answers as if nothing were wrong; for UploadPartCopy, other requests are left as they
    /// are.
    Miscopy(Miscopy),
}

/// How a part is copied wrongly. ETag and checksums of the part are those of what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miscopy {
    /// One bit of this byte is flipped; a shorter part is left as it is.
    Corrupt {
        /// Which byte of the part.
        at: u64,
    },
    /// So many bytes are missing at the end.
    Short {
        /// Bytes.
        missing: u64,
    },
    /// The range is not looked at, and the whole source copied.
    Whole,
}

impl Effect {
    /// 503 SlowDown.
    pub fn slow_down() -> Self {
        Self::refuse(503, "SlowDown")
    }

    /// 500 InternalError.
    pub fn internal_error() -> Self {
        Self::refuse(500, "InternalError")
    }

    /// Any S3 error: `(403, "AccessDenied")`, `(400, "ExpiredToken")`, `(403, "QuotaExceeded")`.
    pub fn refuse(status: u16, code: &str) -> Self {
        Self::Refuse {
            status,
            code: code.to_owned(),
        }
    }

    /// True if no later rule can do anything after this one.
    pub(super) fn answers(&self) -> bool {
        matches!(
            self,
            Self::Refuse { .. } | Self::Redirect { .. } | Self::CloseBefore
        )
    }
}

/// Which keys a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyMatch {
    Exact(String),
    Prefix(String),
}

/// Which requests, and what happens to them. A new one means every request, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    operation: Option<String>,
    key: Option<KeyMatch>,
    skip: u64,
    times: Option<u64>,
    effect: Effect,
}

impl Rule {
    /// Every request, always.
    pub fn new(effect: Effect) -> Self {
        Self {
            operation: None,
            key: None,
            skip: 0,
            times: None,
            effect,
        }
    }

    /// Only requests of this operation, named as in the S3 API (`PutObject`).
    #[must_use]
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    /// Only requests for this key; for listings, with this prefix.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(KeyMatch::Exact(key.to_owned()));
        self
    }

    /// Only requests for keys that begin so.
    #[must_use]
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        self.key = Some(KeyMatch::Prefix(prefix.to_owned()));
        self
    }

    /// Lets the first `skip` of the requests meant pass.
    #[must_use]
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Ends after `times` requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn means(&self, target: &Target) -> bool {
        let key = match &self.key {
            None => true,
            Some(KeyMatch::Exact(key)) => target.key == *key,
            Some(KeyMatch::Prefix(prefix)) => target.key.starts_with(prefix.as_str()),
        };
        key && self
            .operation
            .as_deref()
            .is_none_or(|operation| operation == target.operation)
    }
}

/// The rules of a server. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Arc<Active>>>>,
}

impl Faults {
    /// Adds a rule; it holds for requests that arrive from now on.
    pub fn add(&self, rule: Rule) -> Fault {
        let active = Arc::new(Active {
            rule,
            met: AtomicU64::new(0),
            fired: watch::Sender::new(0),
            released: watch::Sender::new(false),
        });
        self.rules.lock().push(active.clone());
        Fault {
            faults: self.clone(),
            active,
        }
    }

    /// Removes all rules and releases what hangs.
    pub fn clear(&self) {
        for active in std::mem::take(&mut *self.rules.lock()) {
            active.released.send_replace(true);
        }
    }

    /// The rules that take a request which arrives now, in their order.
    pub(super) fn take(&self, target: &Target) -> Vec<Arc<Active>> {
        let mut taken = Vec::new();
        for active in &*self.rules.lock() {
            if !active.rule.means(target) {
                continue;
            }
            let met = active.met.fetch_add(1, Ordering::Relaxed);
            let ends = active
                .rule
                .times
                .map(|times| active.rule.skip.saturating_add(times));
            if met < active.rule.skip || ends.is_some_and(|ends| met >= ends) {
                continue;
            }
            taken.push(active.clone());
            if active.rule.effect.answers() {
                break;
            }
        }
        taken
    }
}

/// A rule at work.
#[derive(Debug)]
pub(super) struct Active {
    rule: Rule,
    /// Requests that it meant so far.
    met: AtomicU64,
    fired: watch::Sender<u64>,
    released: watch::Sender<bool>,
}

/// A wrong copy on its way to the store, which carries it out: all other faults act in front of it.
#[derive(Clone, Debug)]
pub(super) struct Miscopying(Arc<Active>);

impl Miscopying {
    /// That of a rule, if it is one.
    pub(super) fn of(rule: &Arc<Active>) -> Option<Self> {
        matches!(rule.effect(), Effect::Miscopy(_)).then(|| Self(rule.clone()))
    }

    /// What is copied in place of `range` of a source of `source_len` bytes, and the byte of it to damage; the rule has
    /// fired then.
    pub(super) fn strike(&self, range: Range<u64>, source_len: u64) -> (Range<u64>, Option<u64>) {
        self.0.fire();
        match self.0.effect() {
            Effect::Miscopy(Miscopy::Corrupt { at }) => (range, Some(*at)),
            Effect::Miscopy(Miscopy::Short { missing }) => {
                let end = range.end.saturating_sub(*missing).max(range.start);
                (range.start..end, None)
            }
            Effect::Miscopy(Miscopy::Whole) => (0..source_len, None),
            _ => (range, None),
        }
    }
}

impl Active {
    /// What it does.
    pub(super) fn effect(&self) -> &Effect {
        &self.rule.effect
    }

    /// Says that its effect is there.
    pub(super) fn fire(&self) {
        self.fired.send_modify(|fired| *fired += 1);
    }

    /// Waits until a test releases it.
    pub(super) async fn released(&self) {
        // Cannot fail: the sender lives in `self`.
        let _ = self
            .released
            .subscribe()
            .wait_for(|released| *released)
            .await;
    }
}

/// The handle of a rule that was added. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Fault {
    faults: Faults,
    active: Arc<Active>,
}

impl Fault {
    /// How often it has fired.
    pub fn fired(&self) -> u64 {
        *self.active.fired.borrow()
    }

    /// Waits until it has fired `times` times in all.
    pub async fn wait_fired(&self, times: u64) {
        // Cannot fail: the sender lives as long as this handle.
        let _ = self
            .active
            .fired
            .subscribe()
            .wait_for(|fired| *fired >= times)
            .await;
    }

    /// Lets all go on that hangs or stalls by this rule, now and later.
    pub fn release(&self) {
        self.active.released.send_replace(true);
    }

    /// Ends the rule and releases what hangs by it.
    pub fn remove(&self) {
        self.faults
            .rules
            .lock()
            .retain(|active| !Arc::ptr_eq(active, &self.active));
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(operation: &'static str, key: &str) -> Target {
        Target {
            operation,
            bucket: "b".into(),
            key: key.into(),
        }
    }

    #[test]
    fn a_rule_skips_strikes_and_ends() {
        let faults = Faults::default();
        faults.add(
            Rule::new(Effect::LoseAnswer)
                .on("PutObject")
                .key_prefix("d/")
                .skip(1)
                .times(2),
        );
        let strikes = |target: &Target| faults.take(target).len();
        assert_eq!(strikes(&target("GetObject", "d/a")), 0);
        assert_eq!(strikes(&target("PutObject", "e")), 0);
        let hit: Vec<_> = (0..5)
            .map(|_| strikes(&target("PutObject", "d/a")))
            .collect();
        assert_eq!(hit, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn rules_behind_one_that_answers_keep_their_turns() {
        let faults = Faults::default();
        faults.add(Rule::new(Effect::slow_down()).times(1));
        faults.add(Rule::new(Effect::LoseAnswer).times(1));
        assert_eq!(
            faults.take(&target("PutObject", "a"))[0].effect(),
            &Effect::slow_down()
        );
        assert_eq!(
            faults.take(&target("PutObject", "a"))[0].effect(),
            &Effect::LoseAnswer
        );
        assert!(faults.take(&target("PutObject", "a")).is_empty());
    }

    #[test]
    fn removed_rules_are_gone() {
        let faults = Faults::default();
        let fault = faults.add(Rule::new(Effect::HangBefore).key("a"));
        fault.remove();
        assert!(faults.take(&target("PutObject", "a")).is_empty());
    }
}
