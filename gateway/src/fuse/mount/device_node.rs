//! `/dev/fuse`, and who keeps it closed.

use std::fmt;
use std::fs::File;
use std::io;

use nix::errno::Errno;

/// Why `/dev/fuse` cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoDevice {
    /// It is not there, or nobody is behind it.
    Absent,
    /// The file's permissions.
    Permissions,
    /// The device rules of the container (cgroup), which answer EPERM.
    Rules,
    /// Anything else.
    Other(io::Error),
}

impl NoDevice {
    /// What mends it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Absent => "modprobe fuse; in a container: start it with --device /dev/fuse",
            Self::Permissions => "sudo chmod 666 /dev/fuse, which is what distributions ship",
            Self::Rules => "start the container with --device /dev/fuse",
            Self::Other(_) => "modprobe fuse",
        }
    }

    fn of(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Self::Absent,
            Some(Errno::EACCES) => Self::Permissions,
            Some(Errno::EPERM) => Self::Rules,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Permissions => f.write_str("its permissions do not let this user in"),
            Self::Rules => f.write_str("the container's device rules forbid it"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// Opens `/dev/fuse` and closes it again.
///
/// # Errors
/// As [`NoDevice`].
pub fn device() -> Result<(), NoDevice> {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    opened.map(drop).map_err(NoDevice::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_the_device_closed_is_told_apart() {
        for (errno, cause, mend) in [
            (libc::ENOENT, "not there", "modprobe"),
            (libc::EACCES, "permissions", "chmod 666"),
            (libc::EPERM, "device rules", "--device /dev/fuse"),
        ] {
            let found = NoDevice::of(io::Error::from_raw_os_error(errno));
            let line = format!("{found}; {}", found.mend());
            assert!(line.contains(cause) && line.contains(mend), "{line}");
        }
    }
}
