//! Headers that several requests have in common. Macros, because the SDK's builders share methods and no trait.

/// Puts what travels beside the bytes on a request.
macro_rules! with_metadata {
    ($request:expr, $metadata:expr) => {{
        let metadata: &ackfs_cache::store::Metadata = $metadata;
        $request
            .set_metadata((!metadata.user.is_empty()).then(|| {
                metadata
                    .user
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            }))
            .set_content_type(metadata.content_type.clone())
            .set_content_encoding(metadata.content_encoding.clone())
            .set_cache_control(metadata.cache_control.clone())
            .set_content_disposition(metadata.content_disposition.clone())
            .set_content_language(metadata.content_language.clone())
    }};
}

/// Puts the condition on a request.
macro_rules! with_condition {
    ($request:expr, $condition:expr) => {{
        use ackfs_cache::store::Condition;

        let (absent, matches) = match $condition {
            Condition::None => (None, None),
            Condition::Absent => (Some("*".to_owned()), None),
            Condition::Matches(etag) => (None, Some(etag.as_str().to_owned())),
        };
        $request.set_if_none_match(absent).set_if_match(matches)
    }};
}

pub(super) use {with_condition, with_metadata};
