//! What the cases share: a bucket 300 ms away, a mount of it, and what to ask of both.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ackfs_tests::content::assert_same;
use ackfs_tests::demo::Demo;
use ackfs_tests::{Door, Kind, Mount, Options, World};

/// How far the store is: each PUT takes so much longer.
pub(crate) const LATENCY: Duration = Duration::from_millis(300);

/// How long may pass until something that nobody waits for has happened.
const SOON: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    world: World,
    mount: Mount,
    binary: PathBuf,
}

impl Stage {
    pub(crate) fn new(door: Door, binary: &Path) -> Self {
        let world = World::new(Kind::Demo, door);
        let mount = world.options().binary(binary).mount();
        let stage = Self {
            world,
            mount,
            binary: binary.to_owned(),
        };
        stage.slow();
        stage
    }

    /// Puts the store where it is: after faults were ended, which ends this too.
    pub(crate) fn slow(&self) {
        self.demo().slow_uploads(LATENCY);
    }

    pub(crate) fn demo(&self) -> &Demo {
        self.world.demo()
    }

    pub(crate) fn witness(&self) -> &ackfs_tests::Witness {
        self.world.witness()
    }

    /// For a mount of a case's own.
    pub(crate) fn options(&self) -> Options {
        self.world.options().binary(&self.binary)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mount.path(name)
    }

    /// The close mode, as the ready line has it: `release`, or `flush (REASON)`.
    pub(crate) fn mode(&self) -> String {
        mode_of(&self.mount)
    }

    /// Runs a command of ackfs; what it prints.
    pub(crate) fn ackfs(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.binary);
        ackfs_tests::command::clean(&mut command);
        command
            .args(words)
            .env("XDG_RUNTIME_DIR", self.mount.runtime_dir())
            .stdin(Stdio::null());
        let output = command.output().expect("the gateway's binary runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The mounted directory as a word of a command line.
    pub(crate) fn dir(&self) -> String {
        self.mount.dir().to_string_lossy().into_owned()
    }

    /// How many requests have written or would have written `key`, parts and all.
    pub(crate) fn puts(&self, key: &str) -> usize {
        let writes = [
            "PutObject",
            "UploadPart",
            "CompleteMultipartUpload",
            "CopyObject",
        ];
        let records = self.demo().server().requests();
        let records = records.iter().filter(|record| record.key == key);
        records
            .filter(|record| writes.contains(&record.operation))
            .count()
    }

    /// Nothing of `key` was sent.
    pub(crate) fn is_untouched(&self, key: &str) {
        assert_eq!(self.puts(key), 0, "PUTs of {key} before its last close");
        assert_eq!(
            self.witness().head(key),
            None,
            "{key} before its last close"
        );
    }

    /// The witness sees `key` with these bytes now, and so many PUTs have made it.
    pub(crate) fn is_there(&self, key: &str, bytes: &[u8], puts: usize) {
        assert_eq!(self.puts(key), puts, "PUTs of {key}");
        let found = self.witness().get(key);
        let found = found.unwrap_or_else(|| panic!("{key} is not there"));
        assert_same(&found, bytes, key);
    }

    /// Waits until the witness sees `key` with these bytes: for what nobody waits for any more.
    pub(crate) fn comes(&self, key: &str, bytes: &[u8]) {
        let begin = Instant::now();
        while self.witness().get(key).as_deref() != Some(bytes) {
            assert!(begin.elapsed() < SOON, "{key} has not come in {SOON:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A new file with `bytes` in it, open.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> File {
        let mut file = File::create(self.path(name)).expect("create");
        file.write_all(bytes).expect("write");
        file
    }

    /// A new file of `len` zeros, open for reading and writing, to be mapped.
    pub(crate) fn create_zeros(&self, name: &str, len: u64) -> File {
        zeros(&self.path(name), len)
    }
}

/// As [`Stage::mode`], of any mount.
pub(crate) fn mode_of(mount: &Mount) -> String {
    let line = mount.ready_line();
    let after = line.split_once(", mode ").map_or("", |(_, after)| after);
    let mode = after
        .split_once(", conditional")
        .map_or(after, |(mode, _)| mode);
    mode.to_owned()
}

/// As [`Stage::create_zeros`], anywhere.
pub(crate) fn zeros(path: &Path, len: u64) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(path).expect("create");
    file.set_len(len).expect("truncate");
    file
}
