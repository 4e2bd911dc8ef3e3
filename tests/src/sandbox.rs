//! The directory and the children of this process, and what clears up after it.
//!
//! Three ways a test process can end, and what each leaves to whom. A test that returns or panics
//! drops its [`crate::Mount`]s, which unmount and kill. A process that exits leaves its statics
//! (the shared MinIO) to the kernel: every child was started with a parent-death signal. A process
//! that is killed can do nothing at all: its *guardian*, a small shell that waits for the end of a
//! pipe which only this process holds, detaches what is still mounted under the process's
//! directory and removes the directory.
//!
//! The parent-death signal is sent when the *thread* that started the child ends, and the threads
//! of a test end with the test. So one thread starts every child and never ends.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::posix;

/// What the guardian runs: `$1` is the directory of the process it watches over. MinIO may still
/// be writing while it is being killed, so the removal is tried until it holds.
const GUARDIAN: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
    grep -F " $1/" /proc/self/mounts | while read -r _ dir _; do umount -l "$dir"; done
    rm -rf --one-file-system "$1" && exit 0
    sleep 0.2
done
"#;

type Start = (Command, SyncSender<io::Result<Child>>);

struct Sandbox {
    starts: SyncSender<Start>,
    root: PathBuf,
    // Held for its pipe: the guardian acts when it closes.
    _guardian: Child,
}

fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        let root = tempfile::Builder::new()
            .prefix("at-")
            .tempdir()
            .expect("a directory can be made in the temporary directory")
            .keep();
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&root)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        let (starts, queue) = sync_channel::<Start>(8);
        thread::Builder::new()
            .name("children".into())
            .spawn(move || {
                for (mut command, reply) in queue {
                    // A parent that gave up waiting leaves a child nobody owns; it dies with us.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Sandbox {
            starts,
            root,
            _guardian: guardian,
        }
    })
}

/// The directory of this process: everything a test writes outside a mount is below it, and it is
/// removed when the process ends, however it ends.
pub fn root() -> &'static Path {
    &sandbox().root
}

/// A fresh directory below [`root`], removed when dropped.
pub fn dir(prefix: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(root())
        .expect("a directory can be made in the process's own directory")
}

/// A command that will run `program` and be killed when this process ends, if [`spawn`] starts it.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    posix::die_with_parent(&mut command);
    command
}

/// Starts `command`, made by [`command`], from the thread that lives as long as this process.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = sync_channel(1);
    sandbox()
        .starts
        .send((command, reply))
        .expect("the thread that starts children never ends");
    answer.recv().expect("it answers every start")
}
