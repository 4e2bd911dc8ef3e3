//! Syslog by its socket: `<PRI>TAG[PID]: TEXT` as one datagram, which rsyslog, syslog-ng and
//! journald add the time to (RFC 3164, section 4.1; the host name is left out on the local socket, as
//! syslog(3) does).
//!
//! The path is looked up for each line, so a syslog that was restarted has the next one. One that is
//! full or gone loses the line: nobody may wait for it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::Level;

/// Where the machine's syslog listens (`_PATH_LOG` of `<paths.h>`).
pub(super) const PATH: &str = "/dev/log";

/// LOG_DAEMON of `<syslog.h>`: the facility in the bits above the severity.
const DAEMON: u8 = 3 << 3;

/// A way to a syslog.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Syslog {
    /// The syslog that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            path: path.to_owned(),
            socket,
        })
    }

    /// Sends `line`. Never waits.
    pub(super) fn send(&self, level: Level, line: &[u8]) {
        let pri = DAEMON | severity(level);
        let mut message = format!("<{pri}>ackfs[{}]: ", std::process::id()).into_bytes();
        message.extend_from_slice(line.trim_ascii());
        let _ = self.socket.send_to(&message, &self.path);
    }
}

/// The severity of `<syslog.h>`.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        // The two below.
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(syslog: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let len = syslog.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_facility_severity_name_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Syslog::at(&path).is_err(), "nobody listens");
        let listening = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::at(&path).unwrap();
        let pid = std::process::id();
        for (level, pri) in [
            (Level::ERROR, 27),
            (Level::WARN, 28),
            (Level::INFO, 30),
            (Level::DEBUG, 31),
            (Level::TRACE, 31),
        ] {
            syslog.send(level, b" lost: 3 bytes\n");
            assert_eq!(
                received(&listening),
                format!("<{pri}>ackfs[{pid}]: lost: 3 bytes")
            );
        }
    }

    #[test]
    fn a_syslog_that_is_full_or_gone_holds_nobody_and_one_that_comes_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let listening = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::at(&path).unwrap();
        // Far more than a queue holds (net.unix.max_dgram_qlen).
        (0..10_000).for_each(|_| syslog.send(Level::INFO, b"full"));
        drop(listening);
        syslog.send(Level::INFO, b"gone");
        std::fs::remove_file(&path).unwrap();
        let listening = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::INFO, b"back");
        assert!(received(&listening).ends_with(": back"));
    }
}
