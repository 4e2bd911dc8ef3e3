//! Conditions on reads and writes, decided purely: the object that is there, the condition, and the answer AWS gives.
//!
//! Reads follow RFC 9110: If-Match goes before If-Unmodified-Since, If-None-Match before If-Modified-Since; what fails
//! is 412, or 304 where the client's copy is still good. Writes know two conditions. `If-Match` with an ETag wants
//! exactly that version: another one is 412, none at all is 404 NoSuchKey, which many clones get wrong.
//! `If-None-Match: *` wants nothing to be there. The caller holds the lock under which the write happens.

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3Result, s3_error};

use super::object::Object;

/// The conditions of a get, a head, or the source of a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadCondition {
    /// `If-Match`.
    pub(super) matching: Option<ETagCondition>,
    /// `If-None-Match`.
    pub(super) none_match: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub(super) modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub(super) unmodified_since: Option<Timestamp>,
}

/// Why a read is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadRefusal {
    /// The client's copy is the current one: 304 for a read, 412 for the source of a copy.
    NotModified,
    /// 412.
    Failed,
}

impl ReadCondition {
    /// Decides whether `object` may be read.
    ///
    /// # Errors
    /// The refusal that goes with the condition that does not hold.
    pub(super) fn check(&self, object: &Object) -> Result<(), ReadRefusal> {
        let modified = object.modified();
        let unchanged = match (&self.matching, &self.unmodified_since) {
            (Some(condition), _) => matches(condition, object),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !unchanged {
            return Err(ReadRefusal::Failed);
        }
        let changed = match (&self.none_match, &self.modified_since) {
            (Some(condition), _) => !matches(condition, object),
            (None, Some(since)) => modified > *since,
            (None, None) => true,
        };
        if changed {
            Ok(())
        } else {
            Err(ReadRefusal::NotModified)
        }
    }
}

/// The conditions of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WriteCondition {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl WriteCondition {
    /// True if the write is unconditional.
    pub(super) fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Decides whether a write may replace `existing`.
    ///
    /// # Errors
    /// NoSuchKey, PreconditionFailed, or NotImplemented for what AWS does not take, an ETag in If-None-Match.
    pub(super) fn check(&self, existing: Option<&Object>) -> S3Result<()> {
        if let Some(ETagCondition::ETag(_)) = self.if_none_match {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        if let Some(condition) = &self.if_match {
            let existing = existing
                .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
            if !matches(condition, existing) {
                return Err(precondition_failed());
            }
        }
        if self.if_none_match.is_some() && existing.is_some() {
            return Err(precondition_failed());
        }
        Ok(())
    }
}

fn matches(condition: &ETagCondition, object: &Object) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    }
}

/// 412 in AWS's words.
pub(super) fn precondition_failed() -> S3Error {
    s3_error!(
        PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold"
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use s3s::S3ErrorCode;
    use s3s::dto::ETag;

    use super::*;
    use crate::checksum::Sums;
    use crate::content::Content;

    fn object() -> Object {
        Object {
            etag: "one".into(),
            content: Content::default(),
            modified: UNIX_EPOCH + Duration::from_secs(1000),
            headers: std::sync::Arc::default(),
            sums: Sums::default(),
            part_lens: Vec::new(),
        }
    }

    fn tag(value: &str) -> ETagCondition {
        ETagCondition::ETag(ETag::Strong(value.into()))
    }

    fn at(secs: u64) -> Timestamp {
        (UNIX_EPOCH + Duration::from_secs(secs)).into()
    }

    fn write(
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> WriteCondition {
        WriteCondition {
            if_match,
            if_none_match,
        }
    }

    #[test]
    fn writes_are_answered_as_aws_does() {
        let there = object();
        let code = |condition: WriteCondition, existing| {
            condition
                .check(existing)
                .err()
                .map(|error| error.code().clone())
        };
        assert_eq!(code(write(Some(tag("one")), None), Some(&there)), None);
        assert_eq!(
            code(write(Some(tag("two")), None), Some(&there)),
            Some(S3ErrorCode::PreconditionFailed)
        );
        assert_eq!(
            code(write(Some(tag("one")), None), None),
            Some(S3ErrorCode::NoSuchKey)
        );
        assert_eq!(
            code(write(Some(ETagCondition::Any), None), Some(&there)),
            None
        );
        assert_eq!(
            code(write(Some(ETagCondition::Any), None), None),
            Some(S3ErrorCode::NoSuchKey)
        );
        assert_eq!(code(write(None, Some(ETagCondition::Any)), None), None);
        assert_eq!(
            code(write(None, Some(ETagCondition::Any)), Some(&there)),
            Some(S3ErrorCode::PreconditionFailed)
        );
        assert_eq!(
            code(write(None, Some(tag("two"))), Some(&there)),
            Some(S3ErrorCode::NotImplemented)
        );
        assert_eq!(code(write(None, None), Some(&there)), None);
    }

    #[test]
    fn etags_go_before_dates_on_reads() {
        let there = object();
        let mut condition = ReadCondition {
            matching: Some(tag("one")),
            unmodified_since: Some(at(1)),
            ..Default::default()
        };
        assert_eq!(condition.check(&there), Ok(()));
        condition.matching = Some(tag("two"));
        assert_eq!(condition.check(&there), Err(ReadRefusal::Failed));

        let mut condition = ReadCondition {
            none_match: Some(tag("one")),
            modified_since: Some(at(1)),
            ..Default::default()
        };
        assert_eq!(condition.check(&there), Err(ReadRefusal::NotModified));
        condition.none_match = Some(tag("two"));
        assert_eq!(condition.check(&there), Ok(()));
    }

    #[test]
    fn dates_alone_decide_reads() {
        let there = object();
        let since = |modified, unmodified| ReadCondition {
            modified_since: modified,
            unmodified_since: unmodified,
            ..Default::default()
        };
        assert_eq!(since(Some(at(999)), None).check(&there), Ok(()));
        assert_eq!(
            since(Some(at(1000)), None).check(&there),
            Err(ReadRefusal::NotModified)
        );
        assert_eq!(since(None, Some(at(1000))).check(&there), Ok(()));
        assert_eq!(
            since(None, Some(at(999))).check(&there),
            Err(ReadRefusal::Failed)
        );
    }
}
