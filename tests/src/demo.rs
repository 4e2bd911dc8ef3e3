//! The gateway's demo server as a test's store: it counts, and it fails on request.
//!
//! Each world has a server of its own, so faults and counters are that world's alone. The witness
//! asks the same server: its requests are counted and hit by faults like anybody's, so a claim
//! takes its counts, and ends its faults, before it calls the witness.

use std::future::Future;
use std::ops::Sub;
use std::sync::OnceLock;
use std::time::Duration;

use ackfs_demo::faults::Rule;
pub use ackfs_demo::faults::{Effect, Fault, Miscopy};
use ackfs_demo::{DemoConfig, Server};
use tokio::runtime::{Builder, Runtime};

use crate::content::bytes;
use crate::witness::Witness;

/// The access key that every demo server lets in.
pub const ACCESS_KEY: &str = "ackfs-tests";
/// Its secret.
pub const SECRET_KEY: &str = "ackfs-tests-secret";

/// Which requests a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operations of S3, by their short names")]
pub enum On {
    Any,
    Head,
    Get,
    Put,
    Create,
    Part,
    PartCopy,
    Complete,
    Abort,
    List,
    Copy,
    Delete,
}

impl On {
    fn operation(self) -> Option<&'static str> {
        Some(match self {
            On::Any => return None,
            On::Head => "HeadObject",
            On::Get => "GetObject",
            On::Put => "PutObject",
            On::Create => "CreateMultipartUpload",
            On::Part => "UploadPart",
            On::PartCopy => "UploadPartCopy",
            On::Abort => "AbortMultipartUpload",
            On::Complete => "CompleteMultipartUpload",
            On::List => "ListObjectsV2",
            On::Copy => "CopyObject",
            On::Delete => "DeleteObject",
        })
    }
}

/// How many requests of each kind, and how many bytes went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// `HeadObject`.
    pub head: u64,
    /// `GetObject`.
    pub get: u64,
    /// `PutObject`.
    pub put: u64,
    /// `CreateMultipartUpload`.
    pub create: u64,
    /// `UploadPart`.
    pub part: u64,
    /// `UploadPartCopy`.
    pub part_copy: u64,
    /// `CompleteMultipartUpload`.
    pub complete: u64,
    /// `ListObjectsV2`.
    pub list: u64,
    /// All other operations.
    pub other: u64,
    /// Bytes that answers to `GetObject` announced.
    pub bytes_out: u64,
    /// Bytes of all bodies that went over the wire, to the store and from it, as they did.
    pub wire: u64,
}

impl RequestCounts {
    /// All requests.
    pub fn total(&self) -> u64 {
        let multipart = self.create + self.part + self.part_copy + self.complete;
        self.head + self.get + self.put + multipart + self.list + self.other
    }
}

impl Sub for RequestCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            head: self.head - before.head,
            get: self.get - before.get,
            put: self.put - before.put,
            create: self.create - before.create,
            part: self.part - before.part,
            part_copy: self.part_copy - before.part_copy,
            complete: self.complete - before.complete,
            list: self.list - before.list,
            other: self.other - before.other,
            bytes_out: self.bytes_out - before.bytes_out,
            wire: self.wire - before.wire,
        }
    }
}

/// The runtime that all demo servers of this process run on.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("demo").enable_all();
        builder.build().expect("a runtime can be made")
    })
}

/// A demo server with one bucket; stopped when dropped.
#[derive(Debug)]
pub struct Demo {
    server: Server,
    bucket: String,
}

impl Demo {
    /// Starts a server on a free port and makes `bucket` in it.
    pub fn start(bucket: &str) -> Demo {
        let config = DemoConfig {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            ..DemoConfig::default()
        };
        let server = Self::wait(async {
            let server = Server::start(config).await?;
            server.create_bucket(bucket)?;
            std::io::Result::Ok(server)
        });
        Self {
            server: server.expect("the demo server starts"),
            bucket: bucket.to_owned(),
        }
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        runtime().block_on(future)
    }

    /// The server itself, for what has no word here.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// A client of `bucket` in this store.
    pub fn witness(&self, bucket: &str) -> Witness {
        Witness::new(&self.endpoint(), bucket, ACCESS_KEY, SECRET_KEY)
    }

    /// What was asked since the server began.
    pub fn requests(&self) -> RequestCounts {
        let mut sum = RequestCounts::default();
        for (operation, traffic) in self.server.traffic() {
            let count = match operation {
                "HeadObject" => &mut sum.head,
                "GetObject" => &mut sum.get,
                "PutObject" => &mut sum.put,
                "CreateMultipartUpload" => &mut sum.create,
                "UploadPart" => &mut sum.part,
                "UploadPartCopy" => &mut sum.part_copy,
                "CompleteMultipartUpload" => &mut sum.complete,
                "ListObjectsV2" => &mut sum.list,
                _ => &mut sum.other,
            };
            *count += traffic.requests;
            sum.wire += traffic.bytes();
        }
        let records = self.server.requests();
        let gets = records
            .iter()
            .filter(|record| record.operation == "GetObject");
        sum.bytes_out = gets.filter_map(|record| record.answer_len).sum();
        sum
    }

    /// Strikes requests `on` an operation and, if given, on one key, always or so many times.
    pub fn fault(&self, on: On, key: Option<&str>, effect: Effect, times: Option<u64>) -> Fault {
        let mut rule = Rule::new(effect);
        if let Some(operation) = on.operation() {
            rule = rule.on(operation);
        }
        if let Some(key) = key {
            rule = rule.key(key);
        }
        if let Some(times) = times {
            rule = rule.times(times);
        }
        self.server.faults().add(rule)
    }

    /// Ends all faults; what hangs goes on.
    pub fn heal(&self) {
        self.server.faults().clear();
    }

    /// Waits until a fault has struck so many times.
    pub fn wait_fired(&self, fault: &Fault, times: u64) {
        let limit = Duration::from_mins(1);
        let fired =
            Self::wait(async { tokio::time::timeout(limit, fault.wait_fired(times)).await });
        assert!(
            fired.is_ok(),
            "the request that the fault is for has not come in {limit:?}"
        );
    }

    /// Puts `count` small objects below `prefix`, past the wire.
    pub fn fill(&self, prefix: &str, count: usize) {
        Self::wait(async {
            for index in 0..count {
                let key = format!("{prefix}{index:06}");
                self.server
                    .put(&self.bucket, &key, key.clone())
                    .await
                    .expect("the store takes it");
            }
        });
    }

    /// Puts an object of `len` bytes of the content that `seed` names, past the wire.
    pub fn fill_one(&self, key: &str, seed: u64, len: usize) {
        Self::wait(async {
            self.server
                .put(&self.bucket, key, bytes(seed, len))
                .await
                .expect("the store takes it");
        });
    }

    /// Makes every part and every object take so much longer on its way in.
    pub fn slow_uploads(&self, time: Duration) {
        self.fault(On::Part, None, Effect::DelayBefore(time), None);
        self.fault(On::Put, None, Effect::DelayBefore(time), None);
    }
}
