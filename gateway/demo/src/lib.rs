//! An S3 server in this process: for `ackfs demo`, and for tests that need a store which races, refuses and lies on
//! request. It is a demo store: everything lives in memory, one key pair is let in, nothing is versioned or encrypted.
//!
//! s3s speaks the protocol (signatures, chunked bodies, XML); the store behind it is ours, because conditional writes must
//! be atomic here if anywhere: the check and the swap happen under one lock, after the body has arrived and every checksum
//! has been verified. Answers and error codes are those of AWS; [`Quirks`] imitates lesser stores. Faults act in front of
//! all that, on HTTP ([`faults`]).
//!
//! From the wire inwards: `front` (names, log, faults) -> s3s -> `service` -> one file for each noun (`put`, `get`, `copy`,
//! `delete`, `list`, `upload`, `bucket`) -> `store` (the lock) -> `object`, `content`.
//! Pure and tested by themselves: `condition`, `listing`, `multipart`, `checksum`, `operation`. No clock but the time of
//! an object's birth, and no waiting under the lock.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use ackfs_demo::{DemoConfig, Server};
//! use ackfs_demo::faults::{Effect, Rule};
//!
//! let server = Server::start(DemoConfig::default()).await?;
//! server.create_bucket("bucket")?;
//! let lost = server.faults().add(Rule::new(Effect::LoseAnswer).on("PutObject").times(1));
//! // ... a client at server.endpoint() puts an object ...
//! lost.wait_fired(1).await;
//! assert_eq!(server.count("PutObject"), 1);
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use s3s::S3Result;
use s3s::auth::SecretKey;
use s3s::service::S3ServiceBuilder;
use s3s::{S3Error, s3_error};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use checksum::Algorithm;
use condition::WriteCondition;
use content::Content;
use faults::Faults;
use front::Front;
use object::{Headers, Object, now};
use requests::Requests;
use service::{KeyPair, LetAllIn, Service};
use socket::Socket;
use store::{Change, Store};

mod body;
mod bucket;
mod checksum;
mod condition;
mod content;
mod copy;
mod delete;
pub mod faults;
mod front;
mod get;
mod list;
mod listing;
mod multipart;
mod object;
mod operation;
mod put;
mod receive;
mod requests;
mod service;
mod socket;
mod store;
mod upload;

pub use requests::{RECORDS_MAX, RequestRecord, Traffic};

/// How long accepting rests when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a server is set up.
#[derive(Clone)]
pub struct DemoConfig {
    /// The access key that is let in.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Lets unsigned requests in too.
    pub anonymous: bool,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Smallest part of a multipart upload but the last, in bytes; S3 has 5 MiB.
    pub part_len_min: u64,
    /// What to imitate.
    pub quirks: Quirks,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self {
            access_key: "ackfs-demo".to_owned(),
            secret_key: "ackfs-demo-secret".to_owned(),
            anonymous: false,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            part_len_min: 5 << 20,
            quirks: Quirks::default(),
        }
    }
}

impl fmt::Debug for DemoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DemoConfig")
            .field("access_key", &self.access_key)
            .field("listen", &self.listen)
            .field("quirks", &self.quirks)
            .finish_non_exhaustive()
    }
}

/// How a store treats the conditions of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConditionalWrites {
    /// All are honoured.
    #[default]
    Aws,
    /// Those of puts and completions are; those of deletions and of a copy's destination are ignored.
    Minio,
    /// All are ignored without a word.
    Ignored,
    /// A request that has one is answered 501 NotImplemented.
    Refused,
}

/// In what the store differs from AWS. The default is AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Conditions of writes.
    pub conditional_writes: ConditionalWrites,
    /// Answers 501 NotImplemented to bodies with checksum trailers, as older stores do.
    pub trailers_refused: bool,
    /// The only region that requests may be signed for; `None` takes any.
    pub region: Option<String>,
    /// How far the `Date` of answers is ahead of the true time. Signatures are judged by the true time.
    pub clock_ahead: Duration,
}

impl Quirks {
    fn region_name(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    /// The condition of a put or a completion that counts.
    fn on_write(&self, condition: WriteCondition) -> S3Result<WriteCondition> {
        match self.conditional_writes {
            ConditionalWrites::Aws | ConditionalWrites::Minio => Ok(condition),
            ConditionalWrites::Ignored => Ok(WriteCondition::default()),
            ConditionalWrites::Refused if condition.is_empty() => Ok(condition),
            ConditionalWrites::Refused => Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            )),
        }
    }

    /// The condition of a copy's destination that counts.
    fn on_copy(&self, condition: WriteCondition) -> S3Result<WriteCondition> {
        match self.conditional_writes {
            ConditionalWrites::Minio => Ok(WriteCondition::default()),
            _ => self.on_write(condition),
        }
    }

    /// The condition of a deletion that counts.
    fn on_delete(&self, condition: WriteCondition) -> S3Result<WriteCondition> {
        self.on_copy(condition)
    }
}

/// An object as the server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it was written, in whole seconds.
    pub modified: SystemTime,
    /// User metadata without the `x-amz-meta-` prefix.
    pub metadata: BTreeMap<String, String>,
    /// `Content-Type`, if the client gave one.
    pub content_type: Option<String>,
    /// Storage class, if the client gave one.
    pub storage_class: Option<String>,
    /// How many parts it was uploaded in; 0 for a plain put.
    pub parts: usize,
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    store: Arc<Store>,
    faults: Faults,
    requests: Requests,
    stopping: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(config: DemoConfig) -> io::Result<Self> {
        let store = Arc::new(Store::new(config.quirks, config.part_len_min));
        let mut builder = S3ServiceBuilder::new(Service {
            store: store.clone(),
        });
        builder.set_auth(KeyPair {
            access_key: config.access_key,
            secret_key: SecretKey::from(config.secret_key),
        });
        if config.anonymous {
            builder.set_access(LetAllIn);
        }
        let (faults, requests) = (Faults::default(), Requests::default());
        let front = Arc::new(Front {
            service: builder.build(),
            store: store.clone(),
            faults: faults.clone(),
            requests: requests.clone(),
            ids: AtomicU64::new(1),
        });
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, front, stopping.clone()));
        Ok(Self {
            address,
            store,
            faults,
            requests,
            stopping,
            accepting,
        })
    }

    /// Its address as a URL, without a slash at the end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its fault rules.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Changes what it imitates, for requests from now on.
    pub fn set_quirks(&self, quirks: Quirks) {
        self.store.set_quirks(quirks);
    }

    /// Stops it: closes every connection, whatever is in progress, and frees the port.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Err(error) = (&mut self.accepting).await {
            tracing::error!(%error, "the demo store ended badly");
        }
    }

    /// Makes a bucket; one that is there already is fine.
    ///
    /// # Errors
    /// InvalidInput if S3 does not allow the name (3 to 63 of `a-z0-9.-`).
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        if !s3s::path::check_bucket_name(name) {
            let message =
                format!("{name:?} is no bucket name: use 3 to 63 of a-z, 0-9, dot and hyphen");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        match self.store.create_bucket(name) {
            Err(error) if *error.code() != s3s::S3ErrorCode::BucketAlreadyOwnedByYou => {
                Err(to_io(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes an object past the wire; its ETag without quotes. Lets others run while it hashes.
    ///
    /// # Errors
    /// If there is no such bucket.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
    ) -> io::Result<String> {
        let content = Content::new([bytes.into()]);
        let (etag, sums) = receive::hash(&content, [Algorithm::Crc64nvme]).await;
        let object = Object {
            etag: etag.clone(),
            content,
            modified: now(),
            headers: Arc::new(Headers::default()),
            sums,
            part_lens: Vec::new(),
        };
        self.change(bucket, key, Some(object))?;
        Ok(etag)
    }

    /// Deletes an object past the wire; one that is not there is fine.
    ///
    /// # Errors
    /// If there is no such bucket.
    pub fn delete(&self, bucket: &str, key: &str) -> io::Result<()> {
        self.change(bucket, key, None)
    }

    fn change(&self, bucket: &str, key: &str, object: Option<Object>) -> io::Result<()> {
        let (bucket, key, condition) =
            (bucket.to_owned(), key.to_owned(), WriteCondition::default());
        self.store
            .commit(Change {
                bucket,
                key,
                condition,
                object,
                ends: None,
            })
            .map_err(to_io)?;
        Ok(())
    }

    /// What a key holds at this moment.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Stored> {
        let object = self.store.object(bucket, key).ok()?;
        Some(Stored {
            bytes: object.content.to_bytes(),
            etag: object.etag.clone(),
            modified: object.modified,
            metadata: object.headers.user.clone(),
            content_type: object.headers.content_type.clone(),
            storage_class: object.headers.storage_class.clone(),
            parts: object.part_lens.len(),
        })
    }

    /// All keys of a bucket that begin with `prefix`, in order.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let keys = self.store.with(bucket, |bucket| {
            let following = bucket.objects.range(Box::<str>::from(prefix)..);
            Ok(following
                .map(|(key, _)| key.to_string())
                .take_while(|key| key.starts_with(prefix))
                .collect())
        });
        keys.unwrap_or_default()
    }

    /// Key and upload id of every multipart upload that was neither completed nor aborted.
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let uploads = self.store.with(bucket, |bucket| {
            Ok(bucket
                .uploads
                .keys()
                .map(|(key, id)| (key.to_string(), id.clone()))
                .collect())
        });
        uploads.unwrap_or_default()
    }

    /// The latest requests, oldest first; at most [`RECORDS_MAX`].
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.requests.records()
    }

    /// How often one operation was asked for since the start or the last reset, faults included.
    pub fn count(&self, operation: &str) -> u64 {
        self.traffic_of(operation).requests
    }

    /// Requests and bytes of one operation since the start or the last reset.
    pub fn traffic_of(&self, operation: &str) -> Traffic {
        self.requests.traffic_of(operation)
    }

    /// Requests and bytes of each operation that was asked for since the start or the last reset.
    pub fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        self.requests.traffic()
    }

    /// Most requests handled at the same time since the start or the last reset.
    pub fn active_max(&self) -> usize {
        self.requests.active_max()
    }

    /// Forgets all records and counters.
    pub fn reset_requests(&self) {
        self.requests.reset();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn to_io(error: S3Error) -> io::Error {
    io::Error::other(error)
}

/// Serves until `stopping`; then ends its connections and waits until they are closed.
async fn accept(listener: TcpListener, front: Arc<Front>, stopping: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => _ = connections.spawn(serve(stream, front.clone())),
            Err(error) => {
                // Out of descriptors, most likely: the queue keeps the client until one is free.
                tracing::warn!(%error, "the demo store cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, front: Arc<Front>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the demo store serves with Nagle's algorithm");
    }
    let (socket, flushes) = Socket::new(stream);
    let service = service_fn(move |request| {
        let (front, flushes) = (front.clone(), flushes.clone());
        async move { front.answer(request, &flushes).await }
    });
    // No timer: a client may keep an idle connection for as long as it likes, also under a test's paused clock.
    let connection = http1::Builder::new().serve_connection(socket, service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}
