//! The commands' side of the control socket. Everything blocks: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::address::{PATIENCE, at_short, beside, path_in, remove};
use super::messages::{ControlReply, ControlRequest};

/// A connection to a daemon, for commands. Blocks.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon of the mount on `dir`, which is resolved. `None` if there is none.
    ///
    /// # Errors
    /// A daemon is there and refuses us.
    pub fn connect(runtime_dirs: &[PathBuf], dir: &Path) -> io::Result<Option<Self>> {
        for runtime_dir in beside(runtime_dirs, dir) {
            if let Some(client) = Self::open(&path_in(runtime_dir, dir))? {
                return Ok(Some(client));
            }
        }
        Ok(None)
    }

    /// Connects to every daemon that has a socket in `runtime_dirs`; removes stale sockets.
    pub fn all(runtime_dirs: &[PathBuf]) -> Vec<Self> {
        let entries = runtime_dirs
            .iter()
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "sock"));
        entries
            .filter_map(|path| Self::open(&path).ok().flatten())
            .collect()
    }

    fn open(path: &Path) -> io::Result<Option<Self>> {
        match at_short(path, |path| UnixStream::connect(path)) {
            Ok(stream) => Ok(Some(Self {
                reader: BufReader::new(stream),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                remove(path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request; its replies come by [`Client::reply`].
    ///
    /// # Errors
    /// The connection broke.
    pub fn request(&mut self, request: ControlRequest) -> io::Result<()> {
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.send(&line)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Waits until the daemon has ended, but not for ever.
    pub fn wait_for_end(self) {
        // Without the limit a daemon that hangs at its end would hang us.
        let stream = self.reader.get_ref();
        if stream.set_read_timeout(Some(PATIENCE)).is_ok() {
            let _ = io::copy(&mut self.reader.get_ref(), &mut io::sink());
        }
    }

    /// The next reply; `None` when there are no more. Waits for the daemon.
    ///
    /// # Errors
    /// The connection broke, or the reply makes no sense.
    pub fn reply(&mut self) -> io::Result<Option<ControlReply>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}
