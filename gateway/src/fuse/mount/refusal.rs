//! Why the kernel, or fusermount3 in its place, did not mount, and what mends it. The kernel gives a
//! number, fuser a sentence with its arguments in debug format around it, fusermount3 a line of its own
//! or none; each of them is turned into a cause and a fix here, by what was asked for and by who asks.

use std::io;
use std::path::Path;

use super::device_node::device;
use super::error::MountError;
use super::options::MountOptions;

/// What mends a mount that no_new_privs stands in the way of: fusermount3 is not root then.
pub const WITHOUT_NO_NEW_PRIVS: &str = "start it without no_new_privs (docker: without \
    --security-opt no-new-privileges; kubernetes: allowPrivilegeEscalation: true; systemd: \
    NoNewPrivileges=no), or as root";

/// What a refusal depends on beside its own words.
struct Facts<'a> {
    root: bool,
    no_new_privs: bool,
    /// `--mount-options`.
    extra: &'a [String],
}

/// What `source`, which fuser gave, means.
pub(super) fn explain(dir: &Path, options: &MountOptions, source: &io::Error) -> MountError {
    if let Err(cause) = device() {
        return MountError::NoDevice(cause);
    }
    let facts = Facts {
        root: nix::unistd::geteuid().is_root(),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
        extra: &options.extra,
    };
    let (why, mend) = told(source, &facts);
    MountError::Refused {
        dir: dir.to_owned(),
        why,
        mend,
    }
}

/// Cause and fix.
fn told(source: &io::Error, facts: &Facts<'_>) -> (String, String) {
    // fusermount3 is started when mount(2) was denied; not found then means itself.
    if source.kind() == io::ErrorKind::NotFound {
        return (
            "mount(2) is not allowed and fusermount3 is not installed".to_owned(),
            "sudo apt-get install fuse3 (or dnf, apk), or run as root".to_owned(),
        );
    }
    if source.raw_os_error() == Some(libc::EACCES) {
        return (
            "this user may not look into it".to_owned(),
            "name a directory of your own".to_owned(),
        );
    }
    let words = words(&source.to_string());
    let has = |text: &str| words.contains(text);
    let extra = facts.extra.join(",");
    let mend = if has("user_allow_other") {
        "echo user_allow_other | sudo tee -a /etc/fuse.conf, or leave --allow-other out".to_owned()
    } else if has("no write access") || has("not owned by user") || has("access mountpoint") {
        "name a directory that this user owns and may write".to_owned()
    } else if has("mount_max") {
        "unmount one of them, or raise mount_max in /etc/fuse.conf".to_owned()
    } else if !extra.is_empty()
        && (has("EINVAL") || has("Invalid argument") || has("unknown option"))
    {
        return (
            format!("{words}; --mount-options {extra} holds what this kernel does not know"),
            "correct it or leave it out (dmesg names the option)".to_owned(),
        );
    } else if facts.no_new_privs && !facts.root {
        return (
            format!("{words}; no_new_privs keeps fusermount3 from being root"),
            WITHOUT_NO_NEW_PRIVS.to_owned(),
        );
    } else if has("Operation not permitted") && facts.root {
        "start the container with --cap-add SYS_ADMIN --device /dev/fuse, and with an AppArmor \
         profile that allows mount"
            .to_owned()
    } else if has("Operation not permitted") {
        "sudo chmod u+s \"$(command -v fusermount3)\", or run as root".to_owned()
    } else {
        "run ackfs doctor, which looks for what is missing".to_owned()
    };
    (words, mend)
}

/// What was said, on one line. Of fuser's own sentence only the errno is for people: it holds the flags
/// and options of mount(2) in Rust's debug format.
fn words(said: &str) -> String {
    let said = match said.strip_prefix("Error calling mount()") {
        Some(sentence) => {
            let errno = sentence.rsplit_once("}: ").or(sentence.rsplit_once("): "));
            format!(
                "mount(2) failed: {}",
                errno.map_or(sentence, |(_, errno)| errno)
            )
        }
        None => said.to_owned(),
    };
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return "fusermount3 failed without a word".to_owned();
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Facts<'_> = Facts {
        root: false,
        no_new_privs: false,
        extra: &[],
    };

    fn line(said: &str, facts: &Facts<'_>) -> String {
        let (why, mend) = told(&io::Error::other(said), facts);
        let line = format!("{why}; {mend}");
        assert!(!mend.is_empty() && !line.contains('\n'), "{line}");
        assert!(!line.contains("; ;") && !line.contains("MsFlags"), "{line}");
        line
    }

    #[test]
    fn each_refusal_of_fusermount3_has_its_own_fix() {
        for (said, fix) in [
            (
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set in \
                 /etc/fuse.conf\n",
                "echo user_allow_other | sudo tee",
            ),
            (
                "fusermount3: user has no write access to mountpoint /mnt/x\n",
                "this user owns",
            ),
            (
                "fusermount3: mountpoint /tmp/x not owned by user\n",
                "this user owns",
            ),
            (
                "fusermount3: mount failed: Operation not permitted\n",
                "chmod u+s",
            ),
            ("", "ackfs doctor"),
        ] {
            let line = line(said, &NOBODY);
            assert!(line.contains(fix), "{line}");
        }
        let absent = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(told(&absent, &NOBODY).1.contains("install fuse3"));
        let closed = io::Error::from_raw_os_error(libc::EACCES);
        assert!(told(&closed, &NOBODY).1.contains("of your own"));
    }

    #[test]
    fn who_asks_decides_what_not_permitted_means() {
        let said = "fusermount3: mount failed: Operation not permitted\n";
        let held = Facts {
            no_new_privs: true,
            ..NOBODY
        };
        assert!(line(said, &held).contains("without no_new_privs"));
        let root = Facts {
            root: true,
            ..NOBODY
        };
        assert!(line(said, &root).contains("--cap-add SYS_ADMIN"));
    }

    /// What fuser says was shown as it is, with the flags in Rust's debug format and no fix.
    #[test]
    fn an_option_that_the_kernel_does_not_know_is_named() {
        let said = "Error calling mount() at \"/mnt/x\" with \"fd=9,rootmode=40755,nonsense\" and \
                    flags=MsFlags(MS_NOSUID | MS_NODEV): EINVAL: Invalid argument";
        let extra = ["nonsense".to_owned()];
        let root = Facts {
            root: true,
            extra: &extra,
            ..NOBODY
        };
        let line = line(said, &root);
        assert!(
            line.starts_with("mount(2) failed: EINVAL: Invalid argument; --mount-options nonsense"),
            "{line}"
        );
        assert!(line.contains("leave it out"), "{line}");
    }
}
