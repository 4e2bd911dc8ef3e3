//! A test's world: a bucket of its own, a witness of it, a door to mount it through.
//!
//! One claim is one function over a `&World`. [`claims!`](crate::claims) lists a module's claims and
//! the mounts each is tried on: both doors against both stores, or against the demo store alone
//! (claims that need faults or counters), or MinIO alone. The [`crate::runner`] runs each in a
//! process of its own; the tests' names end in the store and the door, so that a run can leave out
//! what a machine does not have: `cargo test -- --skip minio_`.

use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::demo::{self, Demo};
use crate::minio;
use crate::mount::{Door, Mount, Options, Refusal};
use crate::witness::Witness;

/// Which store a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The gateway's demo server in this process, this world's alone.
    Demo,
    /// The MinIO that all tests of a run share.
    Minio,
}

#[derive(Debug)]
enum Store {
    Demo(Demo),
    Minio { endpoint: String },
}

/// A bucket, its witness, and a door.
#[derive(Debug)]
pub struct World {
    door: Door,
    store: Store,
    witness: Witness,
}

impl World {
    /// A world with a fresh bucket; the runner makes one for each claim.
    pub fn new(kind: Kind, door: Door) -> Self {
        assert!(
            Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root(),
            "end-to-end tests mount for real: they need root and /dev/fuse"
        );
        static BUCKETS: AtomicU64 = AtomicU64::new(0);
        // Worlds of many processes share one MinIO.
        let number = BUCKETS.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("a date of this century").as_millis();
        let bucket = format!("world-{now}-{}-{number}", process::id());
        let (store, witness) = match kind {
            Kind::Demo => {
                let demo = Demo::start(&bucket);
                let witness = demo.witness(&bucket);
                (Store::Demo(demo), witness)
            }
            Kind::Minio => {
                let endpoint = minio::shared_endpoint();
                let witness = Witness::new(&endpoint, &bucket, minio::USER, minio::USER);
                witness.create_bucket();
                (Store::Minio { endpoint }, witness)
            }
        };
        Self {
            door,
            store,
            witness,
        }
    }

    /// The client that sees the bucket past the gateway.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// The door this world's mounts go through.
    pub fn door(&self) -> Door {
        self.door
    }

    /// The demo server, which counts and fails on request.
    pub fn demo(&self) -> &Demo {
        match &self.store {
            Store::Demo(demo) => demo,
            Store::Minio { .. } => panic!("this claim needs the demo store: list it under demo"),
        }
    }

    /// True if the store is the demo server.
    pub fn is_demo(&self) -> bool {
        matches!(self.store, Store::Demo(_))
    }

    /// Where the store answers.
    pub fn endpoint(&self) -> String {
        match &self.store {
            Store::Demo(demo) => demo.endpoint(),
            Store::Minio { endpoint } => endpoint.clone(),
        }
    }

    /// How to mount this world's bucket through its door; for flags.
    pub fn options(&self) -> Options {
        let (access_key, secret_key) = match &self.store {
            Store::Demo(_) => (demo::ACCESS_KEY, demo::SECRET_KEY),
            Store::Minio { .. } => (minio::USER, minio::USER),
        };
        Options::new(
            self.witness.bucket(),
            &self.endpoint(),
            access_key,
            secret_key,
        )
        .door(self.door)
    }

    /// Mounts the bucket with default flags.
    pub fn mount(&self) -> Mount {
        self.mount_with(self.options())
    }

    /// Mounts with `options`.
    pub fn mount_with(&self, options: Options) -> Mount {
        options.mount()
    }

    /// Mounts with `options`, or gives what the gateway said when it would not.
    pub fn try_mount(&self, options: Options) -> Result<Mount, Refusal> {
        options.try_mount()
    }
}

/// A claim and the mounts it is tried on.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The function's name: the claim in words.
    pub name: &'static str,
    /// Panics if the claim does not hold.
    pub claim: fn(&World),
    /// Where it must hold.
    pub mounts: &'static [(Kind, Door)],
}

/// Both doors, both stores.
pub const EVERY: &[(Kind, Door)] = &[
    (Kind::Demo, Door::Uring),
    (Kind::Demo, Door::Classic),
    (Kind::Minio, Door::Uring),
    (Kind::Minio, Door::Classic),
];
/// Both doors, the demo store.
pub const DEMO: &[(Kind, Door)] = &[(Kind::Demo, Door::Uring), (Kind::Demo, Door::Classic)];
/// Both doors, MinIO.
pub const MINIO: &[(Kind, Door)] = &[(Kind::Minio, Door::Uring), (Kind::Minio, Door::Classic)];
/// What does not depend on the door.
pub const ONE: &[(Kind, Door)] = &[(Kind::Demo, Door::Classic)];

/// Lists a module's claims as its `CLAIMS`: `claims! { EVERY: a, b; DEMO: c; }`, by the names of
/// this module's constants.
#[macro_export]
macro_rules! claims {
    ($($mounts:ident: $($claim:ident),+ $(,)?;)+) => {
        /// This module's claims.
        pub(crate) const CLAIMS: &[$crate::world::Claim] = &[$($(
            $crate::world::Claim {
                name: stringify!($claim),
                claim: $claim,
                mounts: $crate::world::$mounts,
            },
        )+)+];
    };
}
