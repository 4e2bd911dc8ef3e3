//! Names and keys. A directory is a prefix that is empty or ends with `/`; a name under it is one
//! component of a key. Pure.

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

#[cfg(test)]
mod tests {
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
    }
}
