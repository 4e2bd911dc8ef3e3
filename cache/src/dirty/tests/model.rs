//! Random operations with random faults against a `Vec<u8>`.

use proptest::prelude::*;

use super::*;
use crate::store::memory::Gate;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, u64, u8),
    Append(u64, u8),
    SetSize(u64),
    Read(u64, u64),
    Publish,
    /// Writes while the publish is on its way.
    PublishDuring(u64, u64, u8),
    /// The publish meets this.
    PublishFault(Call, Fault),
    /// Somebody else writes the object.
    Plant,
    Touch,
    /// Lets the tasks run.
    Settle,
}

fn faults() -> impl Strategy<Value = Op> {
    let call = prop_oneof![
        Just(Call::Put),
        Just(Call::PutPart),
        Just(Call::Complete),
        Just(Call::Head),
        Just(Call::Get),
        Just(Call::CopyPart),
    ];
    let fault = prop_oneof![
        Just(Fault::Fail(StoreErrorKind::Denied)),
        Just(Fault::Fail(StoreErrorKind::NotFound)),
        Just(Fault::Fail(StoreErrorKind::Timeout)),
        Just(Fault::Fail(StoreErrorKind::Rejected)),
        Just(Fault::FailAfter(StoreErrorKind::Timeout)),
        Just(Fault::FailAfter(StoreErrorKind::Broken)),
    ];
    // A HEAD that does not find what is there would be a store that lies: an answer that was lost cannot be
    // told from somebody else's version then.
    let lies = |call: &Call, fault: &Fault| {
        matches!(call, Call::Head) && matches!(fault, Fault::Fail(StoreErrorKind::NotFound))
    };
    (call, fault)
        .prop_filter("a lie", move |(call, fault)| !lies(call, fault))
        .prop_map(|(call, fault)| Op::PublishFault(call, fault))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let offset = 0..60_000u64;
    let len = prop_oneof![0..200u64, 0..20_000u64];
    let op = prop_oneof![
        4 => (offset.clone(), len.clone(), any::<u8>()).prop_map(|(o, l, s)| Op::Write(o, l, s)),
        6 => (len.clone(), any::<u8>()).prop_map(|(l, s)| Op::Append(l, s)),
        1 => prop_oneof![Just(0), 0..70_000u64].prop_map(Op::SetSize),
        2 => (offset.clone(), len.clone()).prop_map(|(o, l)| Op::Read(o, l)),
        1 => Just(Op::Publish),
        2 => (offset, len, any::<u8>()).prop_map(|(o, l, s)| Op::PublishDuring(o, l, s)),
        2 => faults(),
        1 => Just(Op::Plant),
        1 => Just(Op::Touch),
        2 => Just(Op::Settle),
    ];
    proptest::collection::vec(op, 1..40)
}

struct Model {
    world: World,
    file: Arc<DirtyFile>,
    bytes: Vec<u8>,
    /// What the store holds, if that is known: an answer that was lost leaves it open.
    stored: Option<Vec<u8>>,
    known: bool,
    gates: Vec<Gate>,
    /// Somebody else's version is there.
    foreign: bool,
    /// Bytes of the base are wanted and the version is gone, which a read or a publish has met: nothing
    /// more can be said.
    stale: bool,
    /// Errors that were excused: each fault may make one.
    excused: usize,
}

impl Model {
    async fn write(&mut self, offset: u64, data: Vec<u8>) {
        if !self.file.write_now(offset, &data) {
            self.file.write(offset, &data).await.unwrap();
        }
        let end = offset as usize + data.len();
        if !data.is_empty() {
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            self.bytes[offset as usize..end].copy_from_slice(&data);
        }
    }

    /// Only who reads bytes of the base asks the store: it may meet a fault that is left over, or that
    /// the version is gone.
    fn excuse(&mut self, error: &WriteError) {
        assert!(self.file.away().is_some(), "{error:?}");
        self.excused += 1;
        assert!(self.excused <= 40, "it never ends: {error:?}");
        // A publish whose answer was lost may have replaced the base: the next one finds that out.
        let unclear = !self.file.inner.state.lock().unclear.is_empty();
        self.stale = (self.foreign || unclear) && kind(error) == Some(StoreErrorKind::Changed);
    }

    async fn read(&mut self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        loop {
            if let Some(read) = self.file.read_now(offset, buf) {
                return Some(read);
            }
            match self.file.read(offset, buf).await {
                Ok(read) => return Some(read),
                Err(error) => self.excuse(&error),
            }
            if self.stale {
                return None;
            }
        }
    }

    async fn published(
        &mut self,
        mut sealed: Vec<u8>,
        result: Result<Option<Published>, WriteError>,
    ) {
        match result {
            Ok(_) if self.foreign => panic!("somebody else's version was overwritten"),
            Ok(Some(published)) => {
                // A try that begins anew seals anew: with what was written meanwhile.
                if world_bytes(&self.world).as_ref() != Some(&sealed) {
                    sealed.clone_from(&self.bytes);
                }
                assert_eq!(published.size, sealed.len() as u64);
                assert!(world_bytes(&self.world).as_ref() == Some(&sealed));
                assert!(published.clean || self.file.is_dirty());
                self.stored = Some(sealed);
                self.known = true;
            }
            Ok(None) => panic!("a file that was begun dirty has been published once"),
            Err(error) => {
                assert!(self.file.is_dirty(), "{error:?}");
                if kind(&error) == Some(StoreErrorKind::Changed) {
                    assert!(self.foreign, "it was nobody else: {error:?}");
                    if self.file.away().is_some() {
                        self.stale = true;
                        return;
                    }
                    let base = loop {
                        // A fault may be left over.
                        if let Ok(base) = self.world.store.head(&Key::new("f")).await {
                            break Base::Replace { etag: base.etag };
                        }
                    };
                    self.file.retarget(Key::new("f"), base).await;
                    self.foreign = false;
                }
                self.known = false;
            }
        }
    }

    async fn perform(&mut self, op: Op) {
        match op {
            Op::Write(offset, len, seed) => self.write(offset, pattern(len, seed)).await,
            Op::Append(len, seed) => {
                let offset = self.bytes.len() as u64;
                self.write(offset, pattern(len, seed)).await;
            }
            Op::SetSize(size) => {
                self.file.set_size(size).unwrap();
                self.bytes.resize(size as usize, 0);
            }
            Op::Read(offset, len) => {
                let mut buf = vec![0xEE; len as usize];
                let Some(read) = self.read(offset, &mut buf).await else {
                    return;
                };
                let from = (offset as usize).min(self.bytes.len());
                let to = (from + len as usize).min(self.bytes.len());
                assert_eq!(buf[..read], self.bytes[from..to]);
            }
            Op::Publish | Op::PublishDuring(..) | Op::PublishFault(..) if !self.file.is_dirty() => {
                publish(&self.file).await.unwrap();
            }
            Op::Publish => {
                let result = publish(&self.file).await;
                self.published(self.bytes.clone(), result).await;
            }
            Op::PublishDuring(offset, len, seed) => {
                let sealed = self.bytes.clone();
                self.gates.iter().for_each(Gate::close);
                let task = tokio::spawn({
                    let file = self.file.clone();
                    async move { publish(&file).await }
                });
                settle().await;
                // With little memory a write may have to wait for the publish.
                let data = pattern(len, seed);
                let now = self.file.write_now(offset, &data);
                self.gates.iter().for_each(Gate::open);
                let result = task.await.unwrap();
                if now {
                    self.write(offset, data).await;
                }
                self.published(sealed, result).await;
            }
            Op::PublishFault(call, fault) => {
                self.world.store.inject(call, fault);
                let result = publish(&self.file).await;
                self.published(self.bytes.clone(), result).await;
            }
            Op::Plant => {
                let theirs = vec![0xAB; 17];
                self.world.store.plant("f", theirs.clone());
                self.foreign = true;
                self.stored = Some(theirs);
                self.known = true;
            }
            Op::Touch => self.file.touch(),
            Op::Settle => settle().await,
        }
        if self.stale {
            return;
        }
        if self.known {
            assert!(world_bytes(&self.world) == self.stored);
        }
        assert_eq!(self.file.size(), self.bytes.len() as u64);
        assert!(self.file.inner.meter.bytes() <= self.world.share.bound());
    }
}

fn world_bytes(world: &World) -> Option<Vec<u8>> {
    world.store.bytes("f").map(|bytes| bytes.to_vec())
}

async fn run(ops: Vec<Op>, memory: u64, base: Option<u64>) {
    let world = Setup {
        memory,
        staging: true,
        ..Setup::default()
    }
    .build();
    let gates = vec![
        world.store.gate(Call::Put),
        world.store.gate(Call::Complete),
    ];
    gates.iter().for_each(Gate::open);
    let bytes = pattern(base.unwrap_or(0), 9);
    let file = match base {
        None => world.create(),
        Some(size) => {
            let etag = world.store.plant("f", bytes.clone());
            let id = ObjectId::new(Key::new("f"), etag);
            world.writer.begin(Key::new("f"), Base::Keep { id, size })
        }
    };
    let mut model = Model {
        file,
        world,
        stored: base.map(|_| bytes.clone()),
        bytes,
        known: true,
        gates,
        foreign: false,
        stale: false,
        excused: 0,
    };
    for op in ops {
        model.perform(op).await;
        if model.stale {
            return;
        }
    }
    let mut bytes = vec![0xEE; model.bytes.len() + 1];
    if let Some(read) = model.read(0, &mut bytes).await {
        assert_eq!(bytes[..read], model.bytes);
    }
    let Model { world, file, .. } = model;
    drop(file);
    settle().await;
    assert_eq!(world.store.uploads(), 0, "no upload is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is written, cut, read, published, refused, lost or overwritten by others: reads see
    /// what was written, the store holds exactly what the last publish sealed, a failed publish
    /// keeps every byte, nobody else's version is overwritten, nobody is blamed for our own, and no
    /// upload is left behind.
    #[test]
    fn a_file_agrees_with_an_array_of_bytes(
        ops in ops(),
        memory in prop_oneof![Just(64 * KIB), Just(160 * KIB), Just(4 << 20)],
        base in prop_oneof![Just(None), (0..60_000u64).prop_map(Some)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(ops, memory, base));
    }
}

/// PieceBytes by the test above: with its bytes given up, only the metadata were left to publish.
#[tokio::test]
async fn a_file_that_only_the_store_had_is_gone_with_its_version() {
    let ops = vec![
        Op::Write(20_451, 15_181, 0),
        Op::Append(16_657, 0),
        Op::Publish,
        Op::Write(0, 12_289, 0),
        Op::Append(5027, 0),
        Op::Publish,
        Op::Plant,
        Op::Settle,
        Op::Touch,
        Op::Publish,
    ];
    run(ops, 160 * KIB, None).await;
}
