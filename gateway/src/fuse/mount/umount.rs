//! Taking a mount away: by umount2(2), and where that is not allowed by fusermount3, which may do it
//! for whoever mounted.

use std::io;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Unmounts `dir`, which is without symbolic links. Of `flags`, fusermount3 knows `MNT_DETACH` only.
/// May wait for the kernel to take its requests back.
///
/// # Errors
/// `ResourceBusy` if somebody uses it and `flags` do not detach; the kernel's or fusermount3's other
/// refusals.
pub fn umount(dir: &Path, flags: MntFlags) -> io::Result<()> {
    match umount2(dir, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => by_helper(dir, flags.contains(MntFlags::MNT_DETACH)),
        Err(errno) => Err(errno.into()),
    }
}

fn by_helper(dir: &Path, lazily: bool) -> io::Result<()> {
    let output = Command::new("fusermount3")
        .args(if lazily { &["-u", "-z"][..] } else { &["-u"] })
        .arg("--")
        .arg(dir)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if why.contains("busy") {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
    }
    Err(io::Error::other(why))
}
