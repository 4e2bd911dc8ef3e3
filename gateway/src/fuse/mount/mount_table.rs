//! What is mounted where, by `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Reading it asks no
//! filesystem anything, so a mount whose server is dead or hangs is found as any other.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What our mounts are called there: the filesystem's type and its subtype.
pub const FS_TYPE: &str = "fuse.ackfs";

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The filesystem's type, with its subtype after a dot.
    pub fs_type: String,
    /// What the mount says it shows.
    pub source: String,
    /// The filesystem's device number, `MAJOR:MINOR`.
    pub device: String,
    /// The filesystem's own options, those that mount(2) was given as text.
    pub options: String,
}

/// All mounts of this mount namespace, in order of mounting.
///
/// # Errors
/// `/proc` is not there or not readable.
pub fn all() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount on exactly `dir`, which is absolute and without symbolic links.
///
/// # Errors
/// As [`all`].
pub fn topmost(dir: &Path) -> io::Result<Option<MountEntry>> {
    Ok(all()?.into_iter().rfind(|mount| mount.dir == dir))
}

fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `ID PARENT MAJ:MIN ROOT DIR OPTIONS [TAGS...] - TYPE SOURCE SUPER-OPTIONS`.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let dir = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| unescape(field).to_string_lossy().into_owned();
    Some(MountEntry {
        dir: unescape(dir).into(),
        fs_type: text(rest.next()?),
        source: text(rest.next()?),
        device: text(device),
        options: text(rest.next().unwrap_or_default()),
    })
}

/// The kernel writes a space, tab, newline or backslash as a backslash and three octal digits
/// (`mangle_path`, fs/seq_file.c).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| std::str::from_utf8(tail.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        36 22 0:50 / /mnt/a rw,nosuid shared:1 - fuse.ackfs s3://b rw,user_id=0\n\
        37 22 0:51 / /mnt/a\\040b rw master:1 shared:2 - fuse.other x rw\n\
        broken\n\
        38 36 0:52 / /mnt/a rw - fuse.ackfs s3://c rw,disable_sync_release\n";

    #[test]
    fn a_line_is_read_with_and_without_tags() {
        let mounts = parse(MOUNTINFO);
        assert_eq!(mounts.len(), 4, "the broken line is passed over");
        assert_eq!(mounts[0].fs_type, "ext4");
        assert_eq!(
            mounts[3],
            MountEntry {
                dir: "/mnt/a".into(),
                fs_type: FS_TYPE.to_owned(),
                source: "s3://c".to_owned(),
                device: "0:52".to_owned(),
                options: "rw,disable_sync_release".to_owned(),
            }
        );
        assert_eq!(mounts[2].dir, Path::new("/mnt/a b"));
        assert_eq!(mounts[2].fs_type, "fuse.other");
    }

    #[test]
    fn the_topmost_mount_is_the_last_one() {
        assert_eq!(
            topmost(Path::new("/proc")).unwrap().unwrap().fs_type,
            "proc"
        );
        assert_eq!(topmost(Path::new("/proc/self")).unwrap(), None);
    }

    #[test]
    fn each_escape_of_the_kernel_is_undone() {
        for (field, name) in [
            ("a\\040b", "a b"),
            ("a\\011b", "a\tb"),
            ("a\\012b", "a\nb"),
            ("a\\134040", "a\\040"),
            ("\\303\\244", "ä"),
            ("a\\", "a\\"),
            ("a\\04", "a\\04"),
            ("a\\999", "a\\999"),
        ] {
            assert_eq!(unescape(field.as_bytes()), OsString::from(name), "{field}");
        }
    }

    #[test]
    fn any_bytes_do_no_harm() {
        for text in [
            &b"\\"[..],
            b"1 2 3 4 \\9 - - -",
            b"1 2 3 4 \\77",
            b"\xff \xfe",
        ] {
            let _ = parse(text);
        }
    }
}
