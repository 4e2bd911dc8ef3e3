//! Which conditions the endpoint honours.
//!
//! S3 and most of its relatives honour `If-Match` and `If-None-Match` on writes; some ignore them
//! and replace whatever is there, with a friendly 200. So the mount asks first, in a way that
//! writes nothing where all is well: a PutObject with `If-Match` on a key that does not exist and
//! a version that cannot be. A store that honours the condition answers 404 or 412. One that
//! ignores it makes an empty object, which is then used to try `If-None-Match: *`, and removed.
//!
//! What is not asked is concluded: a store that honours `If-Match` on PutObject honours
//! `If-None-Match` there and both on CompleteMultipartUpload. The conditions on a copy's target
//! and on DELETE are honoured by AWS and ignored by others, and trying them could destroy
//! something; at custom endpoints they are never relied upon.

use std::fmt;

use ackfs_cache::object::Key;
use ackfs_cache::store::{Condition, StoreError, StoreErrorKind, StoreResult};
use tracing::warn;

use super::connect::CHECK_MAX;
use super::core::Core;
use super::error::Failure;
use super::payload::Payload;
use super::request::{Call, random};
use super::stats::Kind;

/// Whether the endpoint honours a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Honoured {
    /// It does.
    Yes,
    /// It ignores or refuses it: ackfs looks first and writes then, and somebody else's write in
    /// between is lost.
    No,
    /// It was not tried: the mount is read-only or may not write. The condition is sent.
    Unknown,
}

impl fmt::Display for Honoured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Honoured::Yes => "yes",
            Honoured::No => "no",
            Honoured::Unknown => "unknown",
        })
    }
}

/// Which conditions the endpoint honours on which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionalSupport {
    /// `If-None-Match: *` on PutObject.
    pub put_if_absent: Honoured,
    /// `If-Match` on PutObject.
    pub put_if_match: Honoured,
    /// Both on CompleteMultipartUpload.
    pub multipart: Honoured,
    /// Both on CopyObject's target. Anything but `Yes` means HEAD first.
    pub copy_target: Honoured,
    /// `If-Match` on DeleteObject. Anything but `Yes` means HEAD first.
    pub delete: Honoured,
}

impl ConditionalSupport {
    /// Before anything was tried. AWS's own endpoints honour them all.
    pub(super) fn presumed(custom_endpoint: bool) -> Self {
        let (writes, others) = if custom_endpoint {
            (Honoured::Unknown, Honoured::No)
        } else {
            (Honoured::Yes, Honoured::Yes)
        };
        Self {
            put_if_absent: writes,
            put_if_match: writes,
            multipart: writes,
            copy_target: others,
            delete: others,
        }
    }

    pub(super) fn put(self, condition: &Condition) -> Honoured {
        match condition {
            Condition::None => Honoured::Yes,
            Condition::Absent => self.put_if_absent,
            Condition::Matches(_) => self.put_if_match,
        }
    }

    pub(super) fn complete(self, condition: &Condition) -> Honoured {
        match condition {
            Condition::None => Honoured::Yes,
            Condition::Absent | Condition::Matches(_) => self.multipart,
        }
    }

    /// Whether close-to-open writes are safe against other writers.
    pub fn writes(self) -> Honoured {
        let all = [self.put_if_absent, self.put_if_match, self.multipart];
        if all.contains(&Honoured::No) {
            Honoured::No
        } else if all.contains(&Honoured::Unknown) {
            Honoured::Unknown
        } else {
            Honoured::Yes
        }
    }
}

/// What one conditional write showed.
enum Seen {
    Refused,
    Ignored,
    Unsupported,
    Denied(StoreError),
}

impl Core {
    /// Tries the endpoint and takes note; see the top of this file. `Unknown` stays where writing
    /// is not allowed.
    ///
    /// # Errors
    /// As of a call whose failure says nothing about conditions: the store is away or busy.
    pub(super) async fn probe_conditional_writes(&self) -> StoreResult<ConditionalSupport> {
        let key = Key::new(format!("{}.ackfs-probe-{:016x}", self.prefix, random()));
        // An MD5 that no object has: stores compare it as text.
        let impossible = Condition::Matches(ackfs_cache::object::ETag::new(
            "\"00000000000000000000000000000000\"",
        ));
        let found = match self.try_condition(&key, &impossible).await? {
            Seen::Denied(error) => {
                self.warn_denied(&error);
                None
            }
            Seen::Refused => Some((Honoured::Yes, Honoured::Yes)),
            seen @ (Seen::Ignored | Seen::Unsupported) => {
                if matches!(seen, Seen::Unsupported) {
                    // Something must be there for the second question.
                    self.try_condition(&key, &Condition::None).await?;
                }
                let absent = self.try_condition(&key, &Condition::Absent).await;
                if let Err(error) = self.delete(&key, None).await {
                    warn!(?key, %error, "the probe's empty object could not be removed");
                }
                match absent? {
                    Seen::Refused => Some((Honoured::Yes, Honoured::No)),
                    _ => Some((Honoured::No, Honoured::No)),
                }
            }
        };
        let mut support = self.support.write();
        if let Some((absent, matches)) = found {
            support.put_if_absent = absent;
            support.put_if_match = matches;
            support.multipart = matches;
            if matches != Honoured::Yes {
                support.copy_target = Honoured::No;
                support.delete = Honoured::No;
                warn_unsupported();
            }
        }
        Ok(*support)
    }

    /// Said once, at the mount: else every close is the first to tell.
    fn warn_denied(&self, error: &StoreError) {
        let who = if self.config.no_sign_request {
            "requests without a signature"
        } else {
            "these credentials"
        };
        warn!(
            %error,
            "{who} may not write below s3://{}/{}: allow s3:PutObject, or give --read-only",
            self.config.bucket,
            self.prefix,
        );
    }

    /// Writes an empty object under `condition`.
    async fn try_condition(&self, key: &Key, condition: &Condition) -> StoreResult<Seen> {
        let (absent, matches) = match condition {
            Condition::None => (None, None),
            Condition::Absent => (Some("*".to_owned()), None),
            Condition::Matches(etag) => (None, Some(etag.as_str().to_owned())),
        };
        let empty = Payload::new(Vec::new());
        // A mount waits for the answer: `--store-timeout` is for bytes that are to be saved.
        let limit = self.config.store_timeout.min(CHECK_MAX);
        let call = Call {
            limit,
            attempt_limit: limit,
            ..self.call(Kind::Put, key)
        };
        let ended = self
            .run(call, || {
                let request = self
                    .client
                    .put_object()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .body(empty.body())
                    .set_if_none_match(absent.clone())
                    .set_if_match(matches.clone())
                    .set_request_payer(self.payer())
                    .set_server_side_encryption(self.sse())
                    .set_ssekms_key_id(self.config.sse_kms_key_id.clone())
                    .set_acl(self.acl());
                async move { request.send().await.map_err(Failure::from_sdk) }
            })
            .await;
        match ended.result {
            Ok(_output) => Ok(Seen::Ignored),
            Err(failure) => match failure.error.kind {
                StoreErrorKind::NotFound | StoreErrorKind::Changed => Ok(Seen::Refused),
                StoreErrorKind::Denied => Ok(Seen::Denied(failure.error)),
                StoreErrorKind::Rejected => Ok(Seen::Unsupported),
                _ => Err(failure.error),
            },
        }
    }

    /// Takes note that the endpoint refuses conditions, learnt from a write. Gives whether that
    /// is news worth a second try.
    pub(super) fn unlearn_conditions(&self) -> bool {
        let mut support = self.support.write();
        if support.writes() == Honoured::No {
            return false;
        }
        support.put_if_absent = Honoured::No;
        support.put_if_match = Honoured::No;
        support.multipart = Honoured::No;
        warn_unsupported();
        true
    }
}

fn warn_unsupported() {
    warn!(
        "this endpoint does not honour conditional writes: ackfs looks before it writes, but a \
         write of somebody else between the look and the write is lost without notice"
    );
}
