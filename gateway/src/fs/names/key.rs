//! Names and keys. A directory is a prefix that is empty or ends with `/`; a name under it is one
//! component of a key. Pure.
//!
//! Keys come in byte order, in which `a` stands before `a-b` and `a-b` before `a/`. A file `a` and a
//! directory `a/` may exist together and the directory wins, but whether `a/` exists is known only
//! when the order has passed it. [`Fold`] holds a file back until then: what it holds is a chain of
//! names each of which begins the next, so it holds few.

use ackfs_cache::object::Key;

use crate::fs::error::{FsError, FsResult};

/// The longest name that the kernel takes (NAME_MAX), in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// The key of the file `name` in the directory `prefix`.
///
/// # Errors
/// `NameTooLong` if the name or the key is, `NotUtf8` if the name is not.
pub fn file_key(prefix: &str, name: &[u8]) -> FsResult<String> {
    if name.len() > NAME_LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    let name = std::str::from_utf8(name).map_err(|_| FsError::NotUtf8)?;
    if prefix.len() + name.len() > Key::LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    Ok(format!("{prefix}{name}"))
}

/// The prefix of the directory `name` in the directory `prefix`: [`file_key`] and `/`.
///
/// # Errors
/// As [`file_key`].
pub fn directory_prefix(prefix: &str, name: &[u8]) -> FsResult<String> {
    let mut key = file_key(prefix, name)?;
    if key.len() + 1 > Key::LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    key.push('/');
    Ok(key)
}

/// The name that a listed key has in the directory `prefix`; `None` if it cannot be a name there:
/// empty (`//`), `.`, `..`, with a NUL or a `/`, or longer than the kernel takes.
pub fn name_of<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    let name = key.strip_prefix(prefix)?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.len() > NAME_LEN_MAX
        || name.bytes().any(|byte| byte == 0 || byte == b'/');
    (!bad).then_some(name)
}

/// Resolves files that a directory of the same name shadows, in a stream of names in byte order of
/// their keys.
#[derive(Debug)]
pub struct Fold<T> {
    /// Files that a directory may still shadow; each name begins the next.
    held: Vec<(String, T)>,
}

impl<T> Default for Fold<T> {
    fn default() -> Self {
        Self { held: Vec::new() }
    }
}

impl<T> Fold<T> {
    /// Takes the next name. Gives to `out` what is now sure to be shown; true if a file was
    /// shadowed.
    pub fn push(
        &mut self,
        name: &str,
        directory: bool,
        value: T,
        out: &mut Vec<(String, T)>,
    ) -> bool {
        let mut shadowed = false;
        while let Some((held, _)) = self.held.last() {
            let follows = name.strip_prefix(held.as_str());
            match follows.map(|rest| rest.as_bytes().first().copied()) {
                // `a` held, `a/` comes: the directory wins.
                Some(None) if directory => {
                    self.held.pop();
                    shadowed = true;
                }
                // `a` held, `a-b` comes: `a/` may still follow.
                Some(Some(next)) if next < b'/' => break,
                _ => out.extend(self.held.pop()),
            }
        }
        if directory {
            out.push((name.to_owned(), value));
        } else {
            self.held.push((name.to_owned(), value));
        }
        shadowed
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The stream has ended: gives what is still held.
    pub fn finish(&mut self, out: &mut Vec<(String, T)>) {
        out.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_cannot_be_are_none() {
        for key in [
            "d/", "d//", "d/.", "d/..", "d/../", "d/a\0b", "x/a", "d/a/b",
        ] {
            assert_eq!(name_of("d/", key), None, "{key}");
        }
        assert_eq!(name_of("d/", &format!("d/{}", "x".repeat(256))), None);
        assert_eq!(name_of("d/", "d/sub/"), Some("sub"));
        assert_eq!(name_of("", "é"), Some("é"));
    }

    #[test]
    fn lengths_are_those_of_the_kernel_and_of_s3() {
        let is_too_long = |key| matches!(key, Err(FsError::NameTooLong));
        assert!(is_too_long(file_key("", &[b'x'; 256])));
        assert!(file_key("", &[b'x'; 255]).is_ok());
        let deep = "d/".repeat(500);
        assert!(file_key(&deep, &[b'x'; 24]).is_ok());
        assert!(is_too_long(directory_prefix(&deep, &[b'x'; 24])));
        assert!(is_too_long(file_key(&deep, &[b'x'; 25])));
        assert!(matches!(file_key("", &[0xff]), Err(FsError::NotUtf8)));
    }

    proptest! {
        /// A name that makes a key is found again in it.
        #[test]
        fn key_and_name_go_both_ways(prefix in "([a-z]{1,4}/){0,3}", name in "[^/\0]{1,20}") {
            prop_assume!(name != "." && name != "..");
            let key = file_key(&prefix, name.as_bytes()).unwrap();
            prop_assert_eq!(name_of(&prefix, &key), Some(name.as_str()));
            let dir = directory_prefix(&prefix, name.as_bytes()).unwrap();
            prop_assert_eq!(name_of(&prefix, &dir), Some(name.as_str()));
        }

        /// Every name comes out once, a directory wins over a file, whatever the order brings between.
        #[test]
        fn directories_win_and_nothing_is_lost(keys in proptest::collection::btree_set("[a!-]{1,4}/?", 0..20)) {
            let mut fold = Fold::default();
            let mut out = Vec::new();
            for key in &keys {
                let name = key.trim_end_matches('/');
                fold.push(name, key.ends_with('/'), key.ends_with('/'), &mut out);
            }
            fold.finish(&mut out);
            let seen: BTreeMap<String, bool> = out.iter().cloned().collect();
            prop_assert_eq!(seen.len(), out.len(), "a name came twice");
            let names: BTreeSet<&str> = keys.iter().map(|key| key.trim_end_matches('/')).collect();
            prop_assert_eq!(seen.len(), names.len());
            for (name, directory) in seen {
                prop_assert_eq!(directory, keys.contains(&format!("{name}/")));
            }
        }
    }
}
