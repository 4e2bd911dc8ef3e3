//! A mount's life: probe, mount, INIT, serve, wait, unmount.
//!
//! fuser's `Session` calls mount(2) or fusermount3 and answers INIT; its own loop is not run. What
//! INIT says cannot be taken back, and after FUSE_OVER_IO_URING the kernel lets no request through
//! until every queue is registered. So everything of the ring that can fail is done before: memory
//! is mapped and every ring thread has built its io_uring when the flag is asked for. If REGISTER
//! is refused after all, the kernel goes back to `/dev/fuse` by itself, and so do we.
//!
//! ```text
//! mount(dir, options)   probe -> rings prepared -> mount, INIT -> readahead      nothing is served yet
//! adopt(fd, options)    probe -> rings prepared -> INIT          another program mounted and will unmount
//! serve(handler)        device thread(s) -> REGISTER everywhere, or fall back    requests flow
//! wait()                until the kernel ends the connection and all threads have gone
//! unmount_idle()        umount(2); busy: nothing happens
//! unmount(force)        umount(2); busy: detached, lives on until the last file is closed
//! ```

mod connect;
mod dead;
mod device_node;
mod error;
mod init;
mod kernel;
pub mod mount_table;
mod mounted;
mod options;
mod probe;
mod readahead;
mod refusal;
mod release;
mod sizing;
mod umount;

pub use self::connect::{TransportInfo, shown_source};
pub use self::dead::DEAD;
pub use self::device_node::{NoDevice, device};
pub use self::error::{MountError, UnmountError};
pub use self::kernel::{BackingId, Kernel};
pub use self::mounted::{Mounted, Unmounted};
pub use self::options::{MountOptions, Transport};
pub use self::probe::{Unavailable, probe, probe_setup, switch};
pub use self::refusal::WITHOUT_NO_NEW_PRIVS;
pub use self::release::{DISABLE_SYNC_RELEASE, NoSyncRelease, sync_release};
pub use self::umount::umount;
