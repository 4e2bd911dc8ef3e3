//! An object store in memory that lies on request: for the tests of this crate and of the gateway's
//! `fs`. Its conditions are atomic, because check and change happen under one lock.
//!
//! A [`Fault`] waits in line for a call of its kind and acts once. [`Gate`] holds calls back until
//! a test lets them go, so that tests order events without sleeping. Every call is written down in
//! [`MemoryStore::calls`], so that a test can say "one PUT and nothing else".

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Body, BoxFuture, Condition, CopyMetadata, Fetched, Fingerprint, ListEntry, ListPage,
    ListRequest, Metadata, ObjectInfo, ObjectStore, Part, PartBytes, Priority, StoreError,
    StoreErrorKind, StoreResult, UploadId,
};
use crate::extent::Extent;
use crate::object::{ETag, Key, ObjectId};

/// The kinds of call, for faults and for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the trait's method of that name")]
pub enum Call {
    Head,
    Get,
    List,
    Put,
    CreateMultipart,
    PutPart,
    CopyPart,
    Complete,
    Abort,
    Copy,
    Delete,
}

/// What a call does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails and does nothing.
    Fail(StoreErrorKind),
    /// Does it, then fails.
    FailAfter(StoreErrorKind),
    /// A HEAD succeeds, and then somebody puts the same object again.
    Overtake,
    /// A body ends with this error after so many bytes.
    CutBody(u64, StoreErrorKind),
}

/// How many bytes of bodies somebody holds, now and at most so far.
#[derive(Debug, Default)]
struct Handed {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A piece of a body; says so when nobody holds it any more.
struct Piece {
    bytes: Bytes,
    handed: Arc<Handed>,
}

impl Piece {
    fn hand_out(bytes: Bytes, handed: &Arc<Handed>) -> Bytes {
        let now = handed.now.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        handed.most.fetch_max(now, Ordering::Relaxed);
        Bytes::from_owner(Self {
            bytes,
            handed: handed.clone(),
        })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.handed
            .now
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Lets the bodies of GETs come forward only as far as a test says.
#[derive(Debug, Clone)]
pub struct Trickle(Arc<watch::Sender<u64>>);

impl Trickle {
    /// Every body may have brought so many bytes from now on.
    pub fn let_through(&self, bytes: u64) {
        self.0.send_replace(bytes);
    }
}

/// Holds calls back while it is closed.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets every call go, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Holds calls back from now on.
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    async fn pass(&self) {
        // The sender lives as long as the gate, so waiting ends only by opening.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

#[derive(Debug, Clone)]
struct Object {
    etag: ETag,
    bytes: Bytes,
    modified: SystemTime,
    metadata: Metadata,
}

#[derive(Debug, Default)]
struct Upload {
    key: String,
    metadata: Metadata,
    parts: BTreeMap<u32, (ETag, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    faults: VecDeque<(Call, Fault)>,
    calls: Vec<(Call, String)>,
    serial: u64,
}

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    gates: Mutex<Vec<(Call, Gate)>>,
    gets: Mutex<Vec<(Extent, Priority)>>,
    trickle: Mutex<Option<Trickle>>,
    handed: Arc<Handed>,
    /// The smallest part but for the last that a completion takes, in bytes.
    part_min: AtomicU64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            gates: Mutex::default(),
            gets: Mutex::default(),
            trickle: Mutex::default(),
            handed: Arc::default(),
            part_min: AtomicU64::new(0),
        })
    }

    /// The next call of this kind meets `fault`; several queue up.
    pub fn inject(&self, call: Call, fault: Fault) {
        self.state.lock().faults.push_back((call, fault));
    }

    /// A gate, closed, that calls of this kind wait at.
    pub fn gate(&self, call: Call) -> Gate {
        let gate = Gate(Arc::new(watch::Sender::new(false)));
        self.gates.lock().push((call, gate.clone()));
        gate
    }

    /// Holds back the bodies of GETs that begin from now on; at first nothing comes through.
    pub fn trickle(&self) -> Trickle {
        let trickle = Trickle(Arc::new(watch::Sender::new(0)));
        *self.trickle.lock() = Some(trickle.clone());
        trickle
    }

    /// Completions refuse parts below so many bytes, but for the last, as S3 does.
    pub fn set_part_min(&self, bytes: u64) {
        self.part_min.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes of bodies somebody holds, now and at most so far.
    pub fn handed(&self) -> (usize, usize) {
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (get(&self.handed.now), get(&self.handed.most))
    }

    /// What every GET since the last time this was asked wanted, and with which priority.
    pub fn gets(&self) -> Vec<(Extent, Priority)> {
        std::mem::take(&mut self.gets.lock())
    }

    /// Puts an object past the trait, as a foreign client would. Gives its version.
    pub fn plant(&self, key: &str, bytes: impl Into<Bytes>) -> ETag {
        self.state
            .lock()
            .write(key, bytes.into(), Metadata::default())
    }

    /// As [`MemoryStore::plant`], with user metadata.
    pub fn plant_with(&self, key: &str, bytes: impl Into<Bytes>, user: &[(&str, &str)]) -> ETag {
        let mut metadata = Metadata::default();
        for (name, value) in user {
            metadata.user.insert(name, value);
        }
        self.state.lock().write(key, bytes.into(), metadata)
    }

    /// Removes an object past the trait.
    pub fn uproot(&self, key: &str) {
        self.state.lock().objects.remove(key);
    }

    /// What a foreign client would read.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        self.state
            .lock()
            .objects
            .get(key)
            .map(|object| object.bytes.clone())
    }

    /// The metadata that a foreign client would see.
    pub fn metadata(&self, key: &str) -> Option<Metadata> {
        self.state
            .lock()
            .objects
            .get(key)
            .map(|object| object.metadata.clone())
    }

    /// Every call since the last time this was asked, with its key or prefix.
    pub fn calls(&self) -> Vec<(Call, String)> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// How many calls of a kind came since [`MemoryStore::calls`] was asked, without taking them from
    /// the record: for waiting until one has come.
    pub fn count_called(&self, call: Call) -> usize {
        let state = self.state.lock();
        state.calls.iter().filter(|(kind, _)| *kind == call).count()
    }

    /// How many multipart uploads are under way.
    pub fn uploads(&self) -> usize {
        self.state.lock().uploads.len()
    }

    /// Writes the call down, waits at its gates, takes its fault.
    async fn enter(&self, call: Call, what: &str) -> StoreResult<Option<Fault>> {
        self.state.lock().calls.push((call, what.to_owned()));
        let gates: Vec<Gate> = self
            .gates
            .lock()
            .iter()
            .filter(|(kind, _)| *kind == call)
            .map(|(_, gate)| gate.clone())
            .collect();
        for gate in gates {
            gate.pass().await;
        }
        let mut state = self.state.lock();
        let at = state.faults.iter().position(|(kind, _)| *kind == call);
        match at.and_then(|at| state.faults.remove(at)) {
            Some((_, Fault::Fail(kind))) => Err(StoreError::new(kind, "injected")),
            other => Ok(other.map(|(_, fault)| fault)),
        }
    }
}

/// The error of a fault that acts after the deed.
fn leave<T>(fault: Option<Fault>, value: T) -> StoreResult<T> {
    match fault {
        Some(Fault::FailAfter(kind)) => Err(StoreError::new(kind, "injected after the deed")),
        _ => Ok(value),
    }
}

/// The same for a write of `size` bytes.
fn leave_written(fault: Option<Fault>, etag: ETag, size: usize) -> StoreResult<ETag> {
    leave(fault, etag).map_err(|mut error| {
        error.lost = Some(Box::new(Fingerprint {
            size: size as u64,
            etag: None,
            checksum: None,
        }));
        error
    })
}

fn missing(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "no such key").with_key(&Key::new(key))
}

fn changed(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Changed, "condition failed").with_key(&Key::new(key))
}

impl State {
    fn write(&mut self, key: &str, bytes: Bytes, metadata: Metadata) -> ETag {
        self.serial += 1;
        let etag = ETag::new(format!("\"{:08x}\"", self.serial));
        let object = Object {
            etag: etag.clone(),
            bytes,
            modified: SystemTime::now(),
            metadata,
        };
        self.objects.insert(key.to_owned(), object);
        etag
    }

    fn check(&self, key: &str, condition: &Condition) -> StoreResult<()> {
        let here = self.objects.get(key).map(|object| &object.etag);
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => here.is_none(),
            Condition::Matches(etag) => here == Some(etag),
        };
        if holds { Ok(()) } else { Err(changed(key)) }
    }

    fn version(&self, id: &ObjectId) -> StoreResult<Object> {
        let object = self
            .objects
            .get(id.key.as_str())
            .ok_or_else(|| missing(id.key.as_str()))?;
        if object.etag != id.etag {
            return Err(changed(id.key.as_str()));
        }
        Ok(object.clone())
    }

    fn part(&mut self, upload: &UploadId, number: u32, bytes: Bytes) -> StoreResult<Part> {
        self.serial += 1;
        let etag = ETag::new(format!("\"part-{:08x}\"", self.serial));
        let upload = self
            .uploads
            .get_mut(&upload.0)
            .ok_or_else(|| missing("upload"))?;
        let size = bytes.len() as u64;
        upload.parts.insert(number, (etag.clone(), bytes));
        Ok(Part {
            number,
            etag,
            checksum: None,
            size,
        })
    }

    fn list(&self, request: &ListRequest) -> ListPage {
        let mut page = ListPage::default();
        let after = request
            .token
            .clone()
            .or_else(|| request.start_after.clone());
        let mut last = String::new();
        let mut count = 0;
        for (key, object) in self.objects.range(request.prefix.clone()..) {
            if !key.starts_with(&request.prefix) {
                break;
            }
            let rest = &key[request.prefix.len()..];
            let folded = rest.find('/').filter(|_| request.delimited);
            let name = match folded {
                Some(at) => &key[..=request.prefix.len() + at],
                None => key.as_str(),
            };
            if after.as_deref().is_some_and(|after| name <= after) || name == last {
                continue;
            }
            if count == request.keys_max.clamp(1, 1000) {
                page.next = Some(last);
                break;
            }
            count += 1;
            name.clone_into(&mut last);
            if folded.is_some() {
                page.prefixes.push(name.to_owned());
            } else {
                page.entries.push(ListEntry {
                    key: key.clone(),
                    etag: object.etag.clone(),
                    size: object.bytes.len() as u64,
                    modified: object.modified,
                });
            }
        }
        page
    }
}

/// Gives bytes in pieces of 64 KiB, so that readers meet several.
#[derive(Debug)]
struct Pieces {
    bytes: Bytes,
    cut: Option<(u64, StoreErrorKind)>,
    trickle: Option<Trickle>,
    sent: u64,
    handed: Arc<Handed>,
}

impl Body for Pieces {
    fn chunk(&mut self) -> BoxFuture<'_, StoreResult<Option<Bytes>>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut len = self.bytes.len().min(64 << 10);
            if let Some((left, kind)) = &mut self.cut {
                if *left == 0 {
                    return Err(StoreError::new(*kind, "injected in the body"));
                }
                len = len.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
            }
            if let Some(trickle) = self.trickle.as_ref().filter(|_| len > 0) {
                let sent = self.sent;
                let mut through = trickle.0.subscribe();
                // The sender lives as long as the trickle, so waiting ends only by a value.
                let _ = through.wait_for(|through| *through > sent).await;
                let through = *through.borrow() - sent;
                len = len.min(usize::try_from(through).unwrap_or(usize::MAX));
            }
            self.sent += len as u64;
            if len == 0 {
                return Ok(None);
            }
            Ok(Some(Piece::hand_out(
                self.bytes.split_to(len),
                &self.handed,
            )))
        })
    }
}

fn concat(body: &[Bytes]) -> Bytes {
    body.concat().into()
}

impl ObjectStore for MemoryStore {
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, StoreResult<ObjectInfo>> {
        Box::pin(async move {
            let fault = self.enter(Call::Head, key.as_str()).await?;
            let object = self.state.lock().objects.get(key.as_str()).cloned();
            let object = object.ok_or_else(|| missing(key.as_str()))?;
            if fault == Some(Fault::Overtake) {
                let (bytes, metadata) = (object.bytes.clone(), object.metadata.clone());
                self.state.lock().write(key.as_str(), bytes, metadata);
            }
            leave(
                fault,
                ObjectInfo {
                    etag: object.etag,
                    size: object.bytes.len() as u64,
                    checksum: None,
                    modified: object.modified,
                    metadata: object.metadata,
                },
            )
        })
    }

    fn get<'a>(
        &'a self,
        id: &'a ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> BoxFuture<'a, StoreResult<Fetched>> {
        Box::pin(async move {
            self.gets.lock().push((extent, priority));
            let fault = self.enter(Call::Get, id.key.as_str()).await?;
            let object = self.state.lock().version(id)?;
            let size = object.bytes.len() as u64;
            let Some(extent) = Extent::between(0, size).intersect(extent) else {
                return Err(StoreError::new(
                    StoreErrorKind::Rejected,
                    "range not satisfiable",
                ));
            };
            let bytes = object
                .bytes
                .slice(extent.offset as usize..extent.end() as usize);
            let cut = match fault {
                Some(Fault::CutBody(after, kind)) => Some((after, kind)),
                _ => None,
            };
            leave(
                fault,
                Fetched {
                    size,
                    body: Box::new(Pieces {
                        bytes,
                        cut,
                        trickle: self.trickle.lock().clone(),
                        sent: 0,
                        handed: self.handed.clone(),
                    }),
                },
            )
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, StoreResult<ListPage>> {
        Box::pin(async move {
            let fault = self.enter(Call::List, &request.prefix).await?;
            let page = self.state.lock().list(&request);
            leave(fault, page)
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Vec<Bytes>,
        metadata: &'a Metadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(async move {
            let fault = self.enter(Call::Put, key.as_str()).await?;
            let mut state = self.state.lock();
            state.check(key.as_str(), condition)?;
            let bytes = concat(&body);
            let size = bytes.len();
            let etag = state.write(key.as_str(), bytes, metadata.clone());
            leave_written(fault, etag, size)
        })
    }

    fn create_multipart<'a>(
        &'a self,
        key: &'a Key,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, StoreResult<UploadId>> {
        Box::pin(async move {
            let fault = self.enter(Call::CreateMultipart, key.as_str()).await?;
            let mut state = self.state.lock();
            state.serial += 1;
            let id = format!("upload-{}", state.serial);
            let upload = Upload {
                key: key.as_str().to_owned(),
                metadata: metadata.clone(),
                parts: BTreeMap::new(),
            };
            state.uploads.insert(id.clone(), upload);
            leave(fault, UploadId(id))
        })
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        body: Vec<PartBytes>,
    ) -> BoxFuture<'a, StoreResult<Part>> {
        Box::pin(async move {
            let fault = self.enter(Call::PutPart, key.as_str()).await?;
            let mut all = Vec::new();
            for piece in &body {
                all.extend_from_slice(&piece.bytes().await?);
            }
            let part = self.state.lock().part(upload, number, all.into())?;
            leave(fault, part)
        })
    }

    fn copy_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        source: &'a ObjectId,
        extent: Extent,
    ) -> BoxFuture<'a, StoreResult<Part>> {
        Box::pin(async move {
            let fault = self.enter(Call::CopyPart, key.as_str()).await?;
            let mut state = self.state.lock();
            let object = state
                .version(source)
                .map_err(|_gone| changed(source.key.as_str()))?;
            let bytes = object
                .bytes
                .slice(extent.offset as usize..extent.end() as usize);
            let part = state.part(upload, number, bytes)?;
            leave(fault, part)
        })
    }

    fn complete<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(async move {
            let fault = self.enter(Call::Complete, key.as_str()).await?;
            let mut state = self.state.lock();
            state.check(key.as_str(), condition)?;
            let begun = state
                .uploads
                .get(&upload.0)
                .ok_or_else(|| missing(key.as_str()))?;
            let refuse = |why: &str| Err(StoreError::new(StoreErrorKind::Rejected, why));
            let mut body = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                let Some((etag, bytes)) = begun.parts.get(&part.number) else {
                    return refuse("InvalidPart");
                };
                if *etag != part.etag || begun.key != key.as_str() {
                    return refuse("InvalidPart");
                }
                if index > 0 && parts[index - 1].number >= part.number {
                    return refuse("InvalidPartOrder");
                }
                let small = (bytes.len() as u64) < self.part_min.load(Ordering::Relaxed);
                if small && index + 1 < parts.len() {
                    return refuse("EntityTooSmall");
                }
                body.push(bytes.clone());
            }
            let metadata = begun.metadata.clone();
            state.uploads.remove(&upload.0);
            let bytes = concat(&body);
            let size = bytes.len();
            let etag = state.write(key.as_str(), bytes, metadata);
            leave_written(fault, etag, size)
        })
    }

    fn abort<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> BoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            let fault = self.enter(Call::Abort, key.as_str()).await?;
            self.state.lock().uploads.remove(&upload.0);
            leave(fault, ())
        })
    }

    fn copy<'a>(
        &'a self,
        source: &'a ObjectId,
        target: &'a Key,
        metadata: CopyMetadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(async move {
            let fault = self.enter(Call::Copy, target.as_str()).await?;
            let mut state = self.state.lock();
            let object = state.version(source)?;
            state.check(target.as_str(), condition)?;
            let metadata = match metadata {
                CopyMetadata::Keep => object.metadata,
                CopyMetadata::Replace(metadata) => metadata,
            };
            let size = object.bytes.len();
            let etag = state.write(target.as_str(), object.bytes, metadata);
            leave_written(fault, etag, size)
        })
    }

    fn delete<'a>(
        &'a self,
        key: &'a Key,
        etag: Option<&'a ETag>,
    ) -> BoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            let fault = self.enter(Call::Delete, key.as_str()).await?;
            let mut state = self.state.lock();
            if let Some(etag) = etag
                && state
                    .objects
                    .get(key.as_str())
                    .is_some_and(|object| object.etag != *etag)
            {
                return Err(changed(key.as_str()));
            }
            state.objects.remove(key.as_str());
            leave(fault, ())
        })
    }
}
