//! `ackfs umount DIR`: asks the daemon that serves DIR to save everything and unmount, and waits for
//! its word. Where no daemon answers, DIR is unmounted as umount(8) would, which the daemon notices
//! if there is one that we may not talk to; a dead mount is detached.

use crate::config::Host;
use crate::control::{Client, ControlReply, ControlRequest, UnsavedFile, files};
use crate::daemon::mountpoint;
use crate::fuse::mount::mount_table;
use crate::logging;

use super::args::UmountArgs;
use super::exit::{CliError, Exit};

/// Runs the command. Waits for the drain.
pub(super) fn run(args: &UmountArgs, host: &Host) -> Result<(), CliError> {
    let shown = args.dir.display();
    let dir = mountpoint::resolve(&args.dir)
        .map_err(|error| CliError::plain(format!("{shown}: {error}")))?;
    let client = Client::connect(&host.runtime_dirs(), &dir).unwrap_or_else(|error| {
        logging::tell(&format!(
            "ackfs: the daemon of {shown} cannot be asked ({error}); unmounting without it"
        ));
        None
    });
    if let Some(client) = client {
        return ask(client, args.force).map_err(|why| CliError {
            message: format!("{shown}: {}", why.message),
            ..why
        });
    }
    match mount_table::topmost(&dir) {
        Ok(None) => return Err(CliError::plain(format!("nothing is mounted on {shown}"))),
        Ok(Some(mount)) if !mount.fs_type.starts_with("fuse") => {
            return Err(CliError::plain(format!(
                "{shown} is a mount of {}, not of ackfs: use umount(8)",
                mount.fs_type
            )));
        }
        // Without /proc the kernel's own answer has to do.
        Ok(Some(_)) | Err(_) => {}
    }
    let result = if args.force || mountpoint::is_dead(&dir) {
        mountpoint::detach(&dir)
    } else {
        mountpoint::unmount(&dir)
    };
    result.map_err(|error| match error.kind() {
        std::io::ErrorKind::ResourceBusy => CliError::plain(format!(
            "{shown} is in use: close the files that are open in it, or add --force"
        )),
        _ => CliError::plain(format!("cannot unmount {shown}: {error}")),
    })
}

fn ask(mut client: Client, force: bool) -> Result<(), CliError> {
    let broken = |error| CliError::plain(format!("the daemon stopped answering: {error}"));
    client
        .request(ControlRequest::Unmount { force })
        .map_err(broken)?;
    loop {
        match client.reply().map_err(broken)? {
            Some(ControlReply::Progress(progress)) => logging::tell(&format!("ackfs: {progress}")),
            Some(ControlReply::Unmounted { unsaved }) => {
                client.wait_for_end();
                if unsaved.is_empty() {
                    return Ok(());
                }
                return Err(not_saved("unmounted", &unsaved));
            }
            Some(ControlReply::StillMounted { unsaved }) => {
                let what = "still mounted (try again, or add --force to lose them)";
                return Err(not_saved(what, &unsaved));
            }
            Some(ControlReply::Failed { message }) => return Err(CliError::plain(message)),
            Some(other) => {
                return Err(CliError::plain(format!("the daemon answered {other:?}")));
            }
            None => return Err(CliError::plain("the daemon ended without an answer")),
        }
    }
}

fn not_saved(what: &str, unsaved: &[UnsavedFile]) -> CliError {
    let mut message = format!("{what}: {} not saved", files(unsaved.len()));
    for file in unsaved {
        message.push_str("\n  ");
        message.push_str(&file.to_string());
    }
    CliError::new(Exit::Unsaved, message)
}
