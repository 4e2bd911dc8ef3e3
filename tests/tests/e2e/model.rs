//! Random operations through a mount, the same ones in a local directory, and no difference.
//!
//! A local filesystem is the model: each operation is done there and through the mount, and both
//! must answer alike, in what they give and in the errno they refuse with. When a file has no open
//! descriptor left, its object is the local file's bytes; at the end the whole tree is, seen
//! through the mount, through a fresh mount, and by the witness. What ackfs says it does not do
//! (renaming a directory) is not generated; unlinking and renaming of open files have tests of
//! their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ackfs_tests::content::{Rng, assert_same, bytes};
use ackfs_tests::posix::{close, errno};
use ackfs_tests::{World, claims, sandbox};
use nix::errno::Errno;

use crate::rounds;

claims! {
    EVERY:
        a_mount_answers_like_a_local_directory;
}

/// The names that operations choose from: few, so that they meet.
const NAMES: [&str; 10] = [
    "a",
    "b",
    "dir",
    "dir/a",
    "dir/b",
    "dir/sub",
    "dir/sub/a",
    "dir/sub/b",
    "other",
    "other/a",
];

/// Most bytes that one write adds; a file grows past several pages and stays quick.
const WRITE_MAX: u64 = 40_000;

/// A file that is open on both sides.
struct Pair {
    name: &'static str,
    mounted: File,
    local: File,
}

struct Model<'a> {
    world: &'a World,
    mount: &'a Path,
    local: &'a Path,
    random: Rng,
    open: Vec<Pair>,
    history: Vec<String>,
}

fn a_mount_answers_like_a_local_directory(world: &World) {
    let mount = world.mount();
    let local = sandbox::dir("local-");
    let mut model = Model {
        world,
        mount: mount.dir(),
        local: local.path(),
        random: Rng::printed("model"),
        open: Vec::new(),
        history: Vec::new(),
    };
    for _ in 0..rounds("ACKFS_TEST_STEPS", 400) {
        model.step();
    }
    while !model.open.is_empty() {
        model.close_one();
    }
    model.compare_trees(mount.dir());
    let fresh = world.mount();
    model.compare_trees(fresh.dir());
    model.compare_bucket();
}

impl Model<'_> {
    fn step(&mut self) {
        let name = *self.random.pick(&NAMES);
        match self.random.below(20) {
            0..4 => self.open_one(name),
            4..8 => self.write_open(),
            8..10 => self.read_open(),
            10 => self.truncate_open(),
            11..14 => self.close_one(),
            14 => self.both(&format!("mkdir {name}"), name, |path| fs::create_dir(path)),
            15 => self.rmdir(name),
            16 => self.unlink(name),
            17 => self.rename(name),
            18 => self.readdir(name),
            _ => self.stat(name),
        }
    }

    /// Does one thing on both sides and compares the answers.
    fn both<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        name: &str,
        operation: impl Fn(&Path) -> io::Result<T>,
    ) {
        let answer = |root: &Path| operation(&root.join(name)).map_err(|error| errno(&error));
        let (mounted, local) = (answer(self.mount), answer(self.local));
        self.note(format!("{what} -> {local:?}"));
        self.agree(&mounted, &local);
    }

    fn note(&mut self, line: String) {
        self.history.push(line);
    }

    fn agree<T: PartialEq + std::fmt::Debug>(&self, mounted: &T, local: &T) {
        assert!(
            mounted == local,
            "the mount says {mounted:?}, a local directory {local:?}, after:\n{}",
            self.history[self.history.len().saturating_sub(40)..].join("\n")
        );
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|pair| pair.name == name)
    }

    fn open_one(&mut self, name: &'static str) {
        if self.open.len() == 4 {
            return self.close_one();
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let how = self.random.below(5);
        match how {
            0 => options.create(true).truncate(true),
            1 => options.create(true).truncate(false),
            2 => options.create_new(true),
            // Appends go through write_all below, at offsets that the kernel chooses.
            3 => options.append(true),
            _ => options.write(false),
        };
        let open = |root: &Path| options.open(root.join(name)).map_err(|error| errno(&error));
        let (mounted, local) = (open(self.mount), open(self.local));
        let errors = (
            mounted.as_ref().err().copied(),
            local.as_ref().err().copied(),
        );
        self.note(format!("open {name} as {how} -> {:?}", errors.1));
        self.agree(&errors.0, &errors.1);
        // A directory opens too, for reading, and then answers nothing that is asked here.
        let is_dir = self.local.join(name).is_dir();
        if let (Ok(mounted), Ok(local), false) = (mounted, local, is_dir) {
            self.open.push(Pair {
                name,
                mounted,
                local,
            });
        }
    }

    fn any_open(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.random.below(self.open.len() as u64) as usize)
    }

    fn write_open(&mut self) {
        let Some(index) = self.any_open() else { return };
        let offset = self.random.below(3 * WRITE_MAX);
        let body = bytes(self.random.word(), self.random.below(WRITE_MAX) as usize);
        let append = self.random.once_in(3);
        let pair = &self.open[index];
        let write = |mut file: &File| {
            let result = if append {
                file.write_all(&body)
            } else {
                file.write_all_at(&body, offset)
            };
            result.map_err(|error| errno(&error))
        };
        let (mounted, local) = (write(&pair.mounted), write(&pair.local));
        let line = format!(
            "write {} {} at {offset} ({append}) -> {local:?}",
            pair.name,
            body.len()
        );
        self.note(line);
        self.agree(&mounted, &local);
    }

    fn read_open(&mut self) {
        let Some(index) = self.any_open() else { return };
        let offset = self.random.below(4 * WRITE_MAX);
        let len = self.random.below(WRITE_MAX) as usize;
        let pair = &self.open[index];
        let read = |file: &File| {
            let mut found = vec![0; len];
            let mut filled = 0;
            while filled < len {
                match file.read_at(&mut found[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) => return Err(errno(&error)),
                }
            }
            found.truncate(filled);
            Ok(found)
        };
        let (mounted, local) = (read(&pair.mounted), read(&pair.local));
        let line = format!("read {} {len} at {offset}", pair.name);
        self.note(line);
        match (&mounted, &local) {
            (Ok(mounted), Ok(local)) if mounted.len() == local.len() => {
                assert_same(mounted, local, &self.history.join("\n"));
            }
            _ => {
                let short = |result: &Result<Vec<u8>, Errno>| result.as_ref().map(Vec::len).ok();
                self.agree(&short(&mounted), &short(&local));
            }
        }
    }

    fn truncate_open(&mut self) {
        let Some(index) = self.any_open() else { return };
        let len = self.random.below(3 * WRITE_MAX);
        let pair = &self.open[index];
        let cut = |file: &File| file.set_len(len).map_err(|error| errno(&error));
        let (mounted, local) = (cut(&pair.mounted), cut(&pair.local));
        let line = format!("truncate {} to {len} -> {local:?}", pair.name);
        self.note(line);
        self.agree(&mounted, &local);
    }

    fn close_one(&mut self) {
        let Some(index) = self.any_open() else { return };
        let Pair {
            name,
            mounted,
            local,
        } = self.open.swap_remove(index);
        self.note(format!("close {name}"));
        let (mounted, local) = (close(mounted), close(local));
        self.agree(&mounted, &local);
        if !self.is_open(name) {
            let found = self.world.witness().get(name);
            let wanted = fs::read(self.local.join(name)).expect("the local file is there");
            let found = found.unwrap_or_else(|| {
                panic!(
                    "{name} is not in the bucket after:\n{}",
                    self.history.join("\n")
                )
            });
            assert_same(&found, &wanted, &format!("{name} in the bucket"));
        }
    }

    fn rmdir(&mut self, name: &str) {
        self.both(&format!("rmdir {name}"), name, |path| fs::remove_dir(path));
    }

    fn unlink(&mut self, name: &str) {
        if !self.is_open(name) {
            self.both(&format!("unlink {name}"), name, |path| {
                fs::remove_file(path)
            });
        }
    }

    fn rename(&mut self, source: &str) {
        let target = *self.random.pick(&NAMES);
        let is_dir = self.local.join(source).is_dir();
        if is_dir || self.is_open(source) || self.is_open(target) {
            return;
        }
        let rename = |root: &Path| {
            fs::rename(root.join(source), root.join(target)).map_err(|error| errno(&error))
        };
        let (mounted, local) = (rename(self.mount), rename(self.local));
        self.note(format!("rename {source} {target} -> {local:?}"));
        self.agree(&mounted, &local);
    }

    fn readdir(&mut self, name: &str) {
        self.both(&format!("readdir {name}"), name, |path| {
            let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
            names.collect::<io::Result<BTreeSet<_>>>()
        });
    }

    fn stat(&mut self, name: &str) {
        self.both(&format!("stat {name}"), name, |path| {
            let stat = fs::metadata(path)?;
            Ok((stat.is_dir(), if stat.is_dir() { 0 } else { stat.len() }))
        });
    }

    fn compare_trees(&self, mount: &Path) {
        let (mounted, local) = (tree(mount), tree(self.local));
        let names = |tree: &BTreeMap<PathBuf, Option<Vec<u8>>>| -> Vec<PathBuf> {
            tree.keys().cloned().collect()
        };
        self.agree(&names(&mounted), &names(&local));
        for (name, wanted) in &local {
            let found = &mounted[name];
            self.agree(&found.is_some(), &wanted.is_some());
            if let (Some(found), Some(wanted)) = (found, wanted) {
                assert_same(found, wanted, &name.to_string_lossy());
            }
        }
    }

    fn compare_bucket(&self) {
        for (name, wanted) in tree(self.local) {
            let Some(wanted) = wanted else { continue };
            let name = name.to_string_lossy();
            let found = self
                .world
                .witness()
                .get(&name)
                .expect("the object is there");
            assert_same(&found, &wanted, &name);
        }
    }
}

/// Every path below `root`, with its bytes if it is a file.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("list").path();
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            if path.is_dir() {
                found.insert(name, None);
                dirs.push(path);
            } else {
                found.insert(name, Some(fs::read(&path).expect("read")));
            }
        }
    }
    found
}
