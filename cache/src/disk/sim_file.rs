//! An open file of the simulated disk.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::platter::Platter;
use crate::extent::Extent;

/// An open file of a [`super::sim::SimDisk`].
#[derive(Debug)]
pub(crate) struct SimFile {
    platter: Arc<Mutex<Platter>>,
    life: u64,
    number: u64,
}

impl SimFile {
    pub(super) fn new(platter: Arc<Mutex<Platter>>, life: u64, number: u64) -> Self {
        Self {
            platter,
            life,
            number,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.platter.lock();
        platter.check_life(self.life)?;
        act(&mut platter)
    }

    pub(super) fn read_now(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.with(|platter| {
            let cached = platter.file(self.number).cached;
            Ok(cached && platter.read(self.number, offset, buf).is_ok())
        })
        .unwrap_or(false)
    }

    pub(super) fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|platter| platter.read(self.number, offset, buf))
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|platter| platter.write(self.number, offset, data))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.with(|platter| {
            if let Some(errno) = platter.fail_writes {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let file = platter.file(self.number);
            file.durable = file.now.clone();
            file.dirty.clear();
            platter.commit_names();
            Ok(())
        })
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|platter| {
            platter.file(self.number).set_len(len);
            Ok(())
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.with(|platter| Ok(platter.file(self.number).now.bytes.len() as u64))
            .unwrap_or(0)
    }

    pub(super) fn punch(&self, extent: Extent) -> io::Result<()> {
        self.with(|platter| {
            platter.file(self.number).punch(extent);
            Ok(())
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut platter = self.platter.lock();
        if platter.life == self.life {
            platter.file(self.number).handles -= 1;
            platter.reap();
        }
    }
}
