//! One page of a listing, decided purely over an ordered map.
//!
//! Keys come in byte order. With a delimiter all keys that share what goes up to its first occurrence behind the prefix
//! are rolled into one common prefix; the walk then jumps behind that prefix by a seek in the map, so that a page costs
//! what it returns and not what lies below it: a bucket of a million keys in ten directories is listed in ten steps.
//!
//! A page is resumed from the last thing it returned, key or common prefix. A marker that lies inside a common prefix
//! skips all of it (so do AWS and its clones), and that is why one string suffices as the place to resume from.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What to list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    /// Never empty.
    pub(super) delimiter: Option<&'a str>,
    /// Only what sorts behind this.
    pub(super) after: Option<&'a str>,
    pub(super) max: usize,
}

/// One thing that a listing returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a, V> {
    Key(&'a str, &'a V),
    CommonPrefix(String),
}

impl<V> Entry<'_, V> {
    fn name(&self) -> &str {
        match self {
            Self::Key(key, _) => key,
            Self::CommonPrefix(prefix) => prefix,
        }
    }
}

/// One page.
#[derive(Debug)]
pub(super) struct Page<'a, V> {
    pub(super) entries: Vec<Entry<'a, V>>,
    /// Where the next page resumes; `None` if this is the last.
    pub(super) next: Option<String>,
}

/// Lists one page of `map`.
pub(super) fn page<'a, V>(map: &'a BTreeMap<Box<str>, V>, query: Query<'_>) -> Page<'a, V> {
    let mut entries: Vec<Entry<'a, V>> = Vec::new();
    if query.max == 0 {
        return Page {
            entries,
            next: None,
        };
    }
    let mut start = first_bound(query);
    'seek: while let Some(from) = start.take() {
        let from = match &from {
            Bound::Included(key) => Bound::Included(key.as_str()),
            Bound::Excluded(key) => Bound::Excluded(key.as_str()),
            Bound::Unbounded => Bound::Unbounded,
        };
        for (key, value) in map.range::<str, _>((from, Bound::Unbounded)) {
            if !key.starts_with(query.prefix) {
                break 'seek;
            }
            if entries.len() == query.max {
                let next = entries.last().map(|entry| entry.name().to_owned());
                return Page { entries, next };
            }
            match common_prefix(key, query) {
                None => entries.push(Entry::Key(key, value)),
                Some(common) => {
                    entries.push(Entry::CommonPrefix(common.to_owned()));
                    start = successor(common).map(Bound::Included);
                    continue 'seek;
                }
            }
        }
    }
    Page {
        entries,
        next: None,
    }
}

/// Where the walk begins; `None` if nothing can follow.
fn first_bound(query: Query<'_>) -> Option<Bound<String>> {
    let Some(after) = query.after.filter(|after| *after >= query.prefix) else {
        return Some(Bound::Included(query.prefix.to_owned()));
    };
    match common_prefix(after, query) {
        Some(common) => successor(common).map(Bound::Included),
        None => Some(Bound::Excluded(after.to_owned())),
    }
}

/// The common prefix that `key` is rolled into, if it is.
fn common_prefix<'k>(key: &'k str, query: Query<'_>) -> Option<&'k str> {
    let delimiter = query.delimiter?;
    let rest = key.strip_prefix(query.prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..query.prefix.len() + at + delimiter.len()])
}

/// The smallest string that sorts behind everything that begins with `prefix`; `None` if there is none.
fn successor(prefix: &str) -> Option<String> {
    // Byte order of UTF-8 is the order of its characters, so the last character that has a next one decides.
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        if let Some(next) = ((last as u32 + 1)..=char::MAX as u32).find_map(char::from_u32) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn map(keys: &[&str]) -> BTreeMap<Box<str>, u8> {
        keys.iter().map(|key| ((*key).into(), 0)).collect()
    }

    /// All names that a listing returns, page by page.
    fn all(
        map: &BTreeMap<Box<str>, u8>,
        prefix: &str,
        delimiter: Option<&str>,
        max: usize,
    ) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let page = page(
                map,
                Query {
                    prefix,
                    delimiter,
                    after: after.as_deref(),
                    max,
                },
            );
            assert!(page.entries.len() <= max);
            names.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    }

    #[test]
    fn a_key_a_directory_and_its_marker_live_together() {
        let map = map(&["a", "a/", "a/b", "a0", "b"]);
        assert_eq!(all(&map, "", Some("/"), 10), ["a", "a/", "a0", "b"]);
        assert_eq!(all(&map, "a/", Some("/"), 10), ["a/", "a/b"]);
        assert_eq!(all(&map, "", None, 10), ["a", "a/", "a/b", "a0", "b"]);
    }

    #[test]
    fn a_marker_inside_a_common_prefix_skips_it() {
        let map = map(&["a/1", "a/2", "b/1", "c"]);
        let page = page(
            &map,
            Query {
                prefix: "",
                delimiter: Some("/"),
                after: Some("a/1"),
                max: 10,
            },
        );
        let names: Vec<_> = page.entries.iter().map(Entry::name).collect();
        assert_eq!(names, ["b/", "c"]);
    }

    #[test]
    fn a_full_last_page_is_not_truncated() {
        let map = map(&["a", "b"]);
        let page = page(
            &map,
            Query {
                prefix: "",
                delimiter: None,
                after: None,
                max: 2,
            },
        );
        assert_eq!(page.next, None);
    }

    #[test]
    fn nothing_follows_the_greatest_prefix() {
        assert_eq!(successor("\u{10FFFF}"), None);
        assert_eq!(successor("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("\u{D7FF}").as_deref(), Some("\u{E000}"));
    }

    proptest! {
        #[test]
        fn pages_together_are_what_a_plain_walk_finds(
            keys in proptest::collection::btree_set("[ab/é0]{1,6}", 0..40),
            prefix in "[ab/]{0,2}",
            delimiter in proptest::option::of("[/b]|a/"),
            max in 1usize..5,
        ) {
            let map: BTreeMap<Box<str>, u8> = keys.iter().map(|key| (key.as_str().into(), 0)).collect();
            let mut want = BTreeSet::new();
            for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
                let name = match delimiter.as_deref().and_then(|d| key[prefix.len()..].find(d).map(|at| at + d.len())) {
                    Some(end) => key[..prefix.len() + end].to_owned(),
                    None => key.clone(),
                };
                want.insert(name);
            }
            let want: Vec<_> = want.into_iter().collect();
            prop_assert_eq!(all(&map, &prefix, delimiter.as_deref(), max), want);
        }
    }
}
