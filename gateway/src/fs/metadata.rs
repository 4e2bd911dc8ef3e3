//! What an object carries beside its bytes: attributes in its user metadata, and its content type.
//!
//! Written are the names that AWS's own gateways use: `file-permissions` (octal, type bits
//! included), `file-owner`, `file-group`, `file-mtime` (nanoseconds since the epoch with `ns`
//! behind), `file-atime` (the same). Read are these and s3fs's (`mode` in decimal, `uid`, `gid`, `atime`,
//! `mtime` and `ctime` in seconds with an optional fraction). Everything else in the metadata is foreign
//! and survives a rewrite.
//!
//! The type bits make an object a symbolic link, whose bytes are its target, a FIFO or a socket. They
//! are believed where the size agrees, so that bytes are never out of reach; device nodes never are.

use std::time::SystemTime;

use ackfs_cache::store::Metadata;

use crate::fs::attr::{FileAttr, Kind, from_time, since_epoch};
use crate::fuse::request::Time;

/// The longest target of a symbolic link in bytes: PATH_MAX without its NUL, as symlink(2) takes it.
pub const TARGET_LEN_MAX: u64 = 4095;

/// The content type of a directory's marker, as other clients give it.
pub(in crate::fs) const DIRECTORY_TYPE: &str = "application/x-directory";

/// s3fs's name for the status change time.
const CTIME: &str = "ctime";

impl Kind {
    /// What an object of `size` bytes with these metadata is.
    pub fn of_object(metadata: &Metadata, size: u64) -> Self {
        match mode_of(metadata).unwrap_or_default() & libc::S_IFMT {
            libc::S_IFLNK if (1..=TARGET_LEN_MAX).contains(&size) => Kind::Symlink,
            libc::S_IFIFO if size == 0 => Kind::Fifo,
            libc::S_IFSOCK if size == 0 => Kind::Socket,
            _ => Kind::File,
        }
    }

    /// Whether an object of `size` bytes may be anything but a file, before its metadata are seen.
    pub fn is_in_doubt(size: u64) -> bool {
        size <= TARGET_LEN_MAX
    }
}

impl FileAttr {
    /// Takes what an object's `metadata` say; what they do not say, or say badly, stays.
    #[must_use]
    pub fn with_metadata(mut self, metadata: &Metadata) -> Self {
        self = self.with_access(metadata);
        let get = |name: &str| metadata.user.get(name);
        self.kind = Kind::of_object(metadata, self.size);
        let time = |names: [&str; 2]| names.into_iter().find_map(get).and_then(parse_time);
        self.mtime = time(["file-mtime", "mtime"]).unwrap_or(self.mtime);
        self.atime = time(["file-atime", "atime"]).or(self.atime);
        self.ctime = get(CTIME).and_then(parse_time).unwrap_or(self.ctime);
        self
    }

    /// Takes mode and owner alone: of a directory's marker, which is no file and is younger or older than
    /// what is in the directory.
    #[must_use]
    pub fn with_access(mut self, metadata: &Metadata) -> Self {
        let get = |name: &str| metadata.user.get(name);
        let number = |name: &str| get(name).and_then(|text| text.trim().parse::<u32>().ok());
        self.mode = mode_of(metadata).map_or(self.mode, |mode| mode & 0o7777);
        self.uid = number("file-owner")
            .or_else(|| number("uid"))
            .unwrap_or(self.uid);
        self.gid = number("file-group")
            .or_else(|| number("gid"))
            .unwrap_or(self.gid);
        self
    }

    /// `foreign` with this file's attributes in it, as they are published. The modification time
    /// is among them only if somebody set it: otherwise the store's own says it, and a multipart
    /// upload, whose metadata are fixed when it begins, need not know when the last byte comes.
    pub fn to_metadata(self, foreign: &Metadata, mtime_set: bool) -> Metadata {
        let mut metadata = foreign.clone();
        // s3fs's names would contradict ours after a change: they go when ours come.
        let theirs = ["mode", "uid", "gid", "atime", "mtime", CTIME];
        let times = ["file-atime", "file-mtime"];
        metadata
            .user
            .retain(|name| !theirs.contains(&name) && !times.contains(&name));
        let mut set = |name: &str, value: String| metadata.user.insert(name, &value);
        set(
            "file-permissions",
            format!("{:07o}", self.kind.mode_bits() | self.mode),
        );
        set("file-owner", self.uid.to_string());
        set("file-group", self.gid.to_string());
        if let Some(atime) = self.atime {
            set("file-atime", time_text(atime));
        }
        if mtime_set {
            set("file-mtime", time_text(self.mtime));
        }
        metadata
    }

    /// `published` as it is kept in memory with the version that this mount made of it: with all times,
    /// so that they do not jump to the store's when an inode is made anew.
    pub fn to_kept(self, published: &Metadata) -> Metadata {
        let mut kept = published.clone();
        for (name, time) in [("file-mtime", self.mtime), (CTIME, self.ctime)] {
            kept.user.insert(name, &time_text(time));
        }
        kept
    }

    /// `foreign` for a copy of the object under another name: as it is, with what the copy's age at the
    /// store would say wrongly.
    pub fn to_moved(self, foreign: &Metadata) -> Metadata {
        if foreign.user.contains_key("file-permissions") {
            return self.to_metadata(foreign, true);
        }
        let mut moved = foreign.clone();
        moved.user.remove(CTIME);
        if !["file-mtime", "mtime"]
            .iter()
            .any(|name| moved.user.contains_key(name))
        {
            let mtime = time_text(self.mtime);
            moved.user.insert("file-mtime", &mtime);
        }
        moved
    }
}

/// Whether `kept` is what [`FileAttr::to_kept`] makes of `shown`, or the same.
pub fn is_kept_of(kept: &Metadata, shown: &Metadata) -> bool {
    let mut kept = kept.clone();
    for name in ["file-mtime", CTIME] {
        if !shown.user.contains_key(name) {
            kept.user.remove(name);
        }
    }
    kept == *shown
}

/// `st_mode`, type bits included, if the metadata say it.
fn mode_of(metadata: &Metadata) -> Option<u32> {
    let get = |name: &str| metadata.user.get(name).map(str::trim);
    let octal = get("file-permissions").and_then(|text| u32::from_str_radix(text, 8).ok());
    octal.or_else(|| get("mode")?.parse().ok())
}

/// What a symbolic link leads to, from its object's bytes: all of them. Of one that only s3fs has
/// written s3fs's reader says more: the bytes up to a NUL, without blanks around them
/// (`s3fs_readlink`).
pub fn target_of<'a>(metadata: &Metadata, bytes: &'a [u8]) -> &'a [u8] {
    if metadata.user.contains_key("file-permissions") {
        return bytes;
    }
    let is_blank = |byte: &u8| b" \t\r\n".contains(byte);
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let begin = text.iter().take_while(|byte| is_blank(byte)).count();
    let text = &text[begin..];
    let end = text.iter().rev().take_while(|byte| is_blank(byte)).count();
    &text[..text.len() - end]
}

/// As AWS's gateways write it.
fn time_text(time: SystemTime) -> String {
    let (seconds, nanoseconds) = since_epoch(time);
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    format!("{total}ns")
}

/// `1595002920123456789ns`, or seconds with an optional fraction.
fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let total: i128 = if let Some(nanoseconds) = text.strip_suffix("ns") {
        nanoseconds.parse().ok()?
    } else {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        let fraction: i128 = digits.parse().ok()?;
        let seconds: i128 = whole.parse::<i64>().ok()?.into();
        let sign = if whole.starts_with('-') { -1 } else { 1 };
        seconds * 1_000_000_000 + sign * fraction
    };
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
    let nanoseconds = total.rem_euclid(1_000_000_000) as u32;
    Some(from_time(Time {
        seconds,
        nanoseconds,
    }))
}

/// What browsers and other clients of the bucket are told that a new file is: by the end of its name.
pub(in crate::fs) fn content_type(name: &str) -> &'static str {
    let guess = mime_guess::from_path(name).first_raw();
    guess.unwrap_or("application/octet-stream")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::fs::attr::Defaults;

    const DEFAULTS: Defaults = Defaults {
        uid: 1,
        gid: 2,
        file_mode: 0o644,
        dir_mode: 0o755,
    };

    proptest! {
        /// What is published is what is read back, before and after the epoch.
        #[test]
        fn attributes_survive_the_metadata(
            mode in 0..0o10000u32, uid: u32, gid: u32,
            seconds in -4_000_000_000i64..8_000_000_000, nanoseconds in 0..1_000_000_000u32,
            accessed in proptest::option::of(-4_000_000_000i64..8_000_000_000),
        ) {
            let mtime = from_time(Time { seconds, nanoseconds });
            prop_assert_eq!(since_epoch(mtime), (seconds, nanoseconds));
            let atime = accessed.map(|seconds| from_time(Time { seconds, nanoseconds }));
            let ctime = UNIX_EPOCH + Duration::new(77, 5);
            let attr = FileAttr { kind: Kind::File, size: 7, mode, uid, gid, atime, mtime, ctime };
            let metadata = attr.to_metadata(&Metadata::default(), true);
            prop_assert_eq!(FileAttr::file(&DEFAULTS, 7, ctime).with_metadata(&metadata), attr);
            prop_assert!(!metadata.user.contains_key(CTIME));
            let kept = attr.to_kept(&attr.to_metadata(&Metadata::default(), false));
            prop_assert_eq!(FileAttr::file(&DEFAULTS, 7, UNIX_EPOCH).with_metadata(&kept), attr);
            prop_assert_eq!(attr.to_metadata(&kept, true), metadata.clone());
            prop_assert!(is_kept_of(&kept, &attr.to_metadata(&Metadata::default(), false)));
            let other = FileAttr { mode: mode ^ 1, ..attr };
            prop_assert!(!is_kept_of(&kept, &other.to_metadata(&Metadata::default(), false)));
            let other = FileAttr { mtime: ctime, ..attr }.to_metadata(&metadata, true);
            prop_assert!(!is_kept_of(&kept, &other) || mtime == ctime);
        }

        #[test]
        fn any_metadata_is_taken_without_panic(value in ".{0,40}") {
            let mut metadata = Metadata::default();
            for name in ["file-permissions", "file-owner", "file-group", "file-mtime", "mode", "atime", CTIME] {
                metadata.user.insert(name, &value);
            }
            let _ = FileAttr::file(&DEFAULTS, 0, UNIX_EPOCH).with_metadata(&metadata);
        }
    }

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        let mut metadata = Metadata::default();
        for (name, value) in pairs {
            metadata.user.insert(name, value);
        }
        metadata
    }

    #[test]
    fn type_bits_are_believed_where_the_size_agrees() {
        let kind = |name, value, size| Kind::of_object(&metadata(&[(name, value)]), size);
        assert_eq!(kind("file-permissions", "0120777", 7), Kind::Symlink);
        assert_eq!(kind("file-permissions", "120777", 4095), Kind::Symlink);
        assert_eq!(kind("mode", "41471", 7), Kind::Symlink);
        assert_eq!(kind("file-permissions", "0120777", 0), Kind::File);
        assert_eq!(kind("file-permissions", "0120777", 4096), Kind::File);
        assert_eq!(kind("mode", "4480", 0), Kind::Fifo);
        assert_eq!(kind("mode", "4480", 1), Kind::File);
        assert_eq!(kind("file-permissions", "0140755", 0), Kind::Socket);
        for other in ["0100644", "0644", "0040755", "0020666", "0060666", "link"] {
            assert_eq!(kind("file-permissions", other, 0), Kind::File, "{other}");
        }
        let both = metadata(&[("file-permissions", "0100644"), ("mode", "41471")]);
        assert_eq!(Kind::of_object(&both, 7), Kind::File);
    }

    #[test]
    fn a_link_of_s3fs_leads_where_s3fs_says() {
        let (ours, s3fs) = (
            metadata(&[("file-permissions", "0120777")]),
            metadata(&[("mode", "41471")]),
        );
        assert_eq!(target_of(&ours, b" a b \n"), b" a b \n");
        assert_eq!(target_of(&s3fs, b" a b \n"), b"a b");
        assert_eq!(target_of(&s3fs, b"a\0b"), b"a");
        assert_eq!(target_of(&s3fs, b"\n"), b"");
    }

    #[test]
    fn s3fs_names_are_read_and_foreign_ones_kept() {
        let mut metadata = Metadata::default();
        for (name, value) in [
            ("mode", "33261"),
            ("uid", "5"),
            ("atime", "13"),
            ("mtime", "12.5"),
            ("ctime", "14.25"),
            ("owner-team", "x"),
        ] {
            metadata.user.insert(name, value);
        }
        let attr = FileAttr::file(&DEFAULTS, 0, UNIX_EPOCH).with_metadata(&metadata);
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o755, 5, 2));
        assert_eq!(since_epoch(attr.mtime), (12, 500_000_000));
        assert_eq!(attr.atime.map(since_epoch), Some((13, 0)));
        assert_eq!(since_epoch(attr.ctime), (14, 250_000_000));
        let rewritten = attr.to_metadata(&metadata, false);
        assert_eq!(rewritten.user.get("owner-team"), Some("x"));
        assert_eq!(rewritten.user.get("file-permissions"), Some("0100755"));
        assert!(!rewritten.user.contains_key("mode"));
    }
}
