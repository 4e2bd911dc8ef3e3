//! The bucket's part: keys that a mount cannot show as files. They are left alone, and whoever misses one
//! finds it here.

use std::collections::BTreeSet;

use ackfs_cache::store::{ListRequest, ObjectStore, StoreResult};

use crate::fs::names::key::name_of;
use crate::s3::S3Store;

use super::check::Check;

const KEYS: &str = "keys";
/// Pages of a thousand keys that are looked at: a bucket may have millions of them.
const PAGES_MAX: usize = 10;
/// Keys that are named.
const NAMED_MAX: usize = 5;

/// What a listing from the beginning holds that cannot be shown.
#[derive(Debug, Default)]
struct KeySurvey {
    keys: usize,
    hidden: Vec<String>,
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
}

impl KeySurvey {
    fn add(&mut self, prefix: &str, key: &str) {
        self.keys += 1;
        let Some(below) = key.strip_prefix(prefix) else {
            return;
        };
        // A marker is its directory.
        let path = below.strip_suffix('/').unwrap_or(below);
        if path.is_empty() && key == prefix {
            return;
        }
        if path.split('/').any(|name| name_of("", name).is_none()) {
            self.hidden.push(key.to_owned());
            return;
        }
        let ends = path.match_indices('/').map(|(at, _)| at);
        let marker = below.ends_with('/').then_some(path.len());
        for end in ends.chain(marker) {
            self.directories.insert(path[..end].to_owned());
        }
        if marker.is_none() {
            self.files.insert(path.to_owned());
        }
    }

    fn check(self, prefix: &str, whole: bool) -> Check {
        let seen = match (whole, self.keys) {
            (true, keys) => format!("all {keys}"),
            (false, keys) => format!("the first {keys}"),
        };
        let shadowed = self.files.intersection(&self.directories);
        let shadowed: Vec<String> = shadowed.map(|path| format!("{prefix}{path}")).collect();
        let count = self.hidden.len() + shadowed.len();
        if count == 0 {
            return Check::ok(KEYS, format!("{seen} can be shown as files"));
        }
        let all = self.hidden.iter().chain(&shadowed);
        let named: Vec<String> = all.take(NAMED_MAX).map(|key| format!("{key:?}")).collect();
        let more = match count - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let found = format!(
            "of {seen}, {} cannot be names and {} have the name of a directory: {}{more}",
            self.hidden.len(),
            shadowed.len(),
            named.join(", ")
        );
        Check::warn(KEYS, found, "rename them with an S3 client to see them")
    }
}

/// Looks at the first keys below `prefix`. Waits for the store.
pub(super) async fn check(store: &S3Store, prefix: &str) -> Check {
    match look(store, prefix).await {
        Ok((seen, whole)) => seen.check(prefix, whole),
        Err(error) => {
            let found = format!("cannot be listed: {error}");
            Check::warn(KEYS, found, "allow s3:ListBucket")
        }
    }
}

async fn look(store: &S3Store, prefix: &str) -> StoreResult<(KeySurvey, bool)> {
    let mut seen = KeySurvey::default();
    let mut request = ListRequest {
        prefix: prefix.to_owned(),
        delimited: false,
        token: None,
        start_after: None,
        keys_max: 1000,
    };
    for _ in 0..PAGES_MAX {
        let page = store.list(request.clone()).await?;
        for entry in &page.entries {
            seen.add(prefix, &entry.key);
        }
        if page.next.is_none() {
            return Ok((seen, true));
        }
        request.token = page.next;
    }
    Ok((seen, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(prefix: &str, keys: &[&str], whole: bool) -> String {
        let mut seen = KeySurvey::default();
        for key in keys {
            seen.add(prefix, key);
        }
        seen.check(prefix, whole).line()
    }

    #[test]
    fn keys_that_cannot_be_shown_are_named() {
        let good = line("p/", &["p/", "p/a", "p/d/", "p/d/x", "p/e/f/g"], true);
        assert!(good.starts_with("ok") && good.contains("all 5"), "{good}");
        let long = format!("p/{}", "n".repeat(256));
        let bad = [
            "p/d//x", "p/../x", "p/.", &long, "p/a", "p/a/b", "p/m", "p/m/",
        ];
        let text = line("p/", &bad, false);
        assert!(text.starts_with("warn"), "{text}");
        let told =
            "of the first 8, 4 cannot be names and 2 have the name of a directory: \"p/d//x\"";
        assert!(text.contains(told), "{text}");
        assert!(text.contains("\"p/a\" and 1 more"), "{text}");
    }
}
