//! The sizes that follow from what a mount is asked to be and from the kernel's limits.

use std::fs;

use super::options::MountOptions;
use crate::fuse::abi::ring::MIN_PAYLOAD;
use crate::fuse::doors::Geometry;
use crate::fuse::ring::cpus;

/// Largest READ and WRITE asked for. The kernel's own default limit (`fs.fuse.max_pages_limit` =
/// 256 pages) is the same; beyond it a request's fixed cost no longer shows.
const MAX_WRITE: u32 = 1 << 20;

/// Smallest that memory may press it down to: the readahead the kernel begins with.
const MAX_WRITE_MIN: u32 = 128 << 10;

/// Slots of a queue unless asked otherwise. A slot is held until its request is answered, so this
/// is how many misses of one CPU can wait for the store before more slots are registered.
const DEPTH: u32 = 64;

/// Fewest slots of a queue: 8 that wait beside 8 that are kept for hits.
const DEPTH_MIN: u32 = 16;

/// A queue may grow to this many times its depth when slow requests hold its slots.
const GROWTH: u32 = 4;

/// Most slots of a queue; the kernel has no limit, our tables do.
const DEPTH_MAX: u32 = 1024;

/// Memory for payloads unless asked otherwise.
const MEMORY_BOUND: u64 = 64 << 20;

/// The sizes of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizing {
    pub(super) queues: u32,
    pub(super) depth: u32,
    pub(super) depth_max: u32,
    pub(super) max_write: u32,
    pub(super) max_background: u16,
    pub(super) payload: usize,
    pub(super) memory_bound: u64,
    fault_short_payload: bool,
}

/// What the machine allows.
#[derive(Debug, Clone, Copy)]
struct MachineLimits {
    page: u32,
    pages_max: u32,
    queues: u32,
}

impl MachineLimits {
    fn read() -> Self {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .map_or(4096, |page| page as u32);
        // Kernels before 6.13 have no such file; their limit is a constant, FUSE_MAX_MAX_PAGES.
        let pages_max = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(256);
        Self {
            page,
            pages_max,
            queues: cpus::possible().len() as u32,
        }
    }
}

impl Sizing {
    /// The sizes that follow from `options` on this machine.
    pub(super) fn of(options: &MountOptions) -> Self {
        Self::within(options, MachineLimits::read())
    }

    fn within(options: &MountOptions, limits: MachineLimits) -> Self {
        let memory_bound = options.memory_bound.unwrap_or(MEMORY_BOUND);
        let queues = limits.queues.max(1);
        let mut max_write = MAX_WRITE.min(limits.pages_max.saturating_mul(limits.page));
        // Each queue can have eight requests of full size at once within the bound.
        while max_write > MAX_WRITE_MIN
            && u64::from(max_write) * u64::from(queues) * 8 > memory_bound
        {
            max_write /= 2;
        }
        let payload = (max_write as usize)
            .next_multiple_of(limits.page as usize)
            .max(MIN_PAYLOAD);
        let wanted = options.queue_depth.unwrap_or(DEPTH);
        let depth = wanted.clamp(DEPTH_MIN, DEPTH_MAX);
        let slots = queues.saturating_mul(depth).clamp(64, 4096);
        Self {
            queues,
            depth,
            depth_max: depth.saturating_mul(GROWTH).min(DEPTH_MAX * GROWTH),
            max_write,
            max_background: options.max_background.unwrap_or(slots as u16).max(1),
            payload,
            memory_bound,
            fault_short_payload: options.fault_short_payload,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            depth: self.depth,
            depth_max: self.depth_max,
            payload: self.payload,
            resident_max: self.memory_bound,
            fault_short_payload: self.fault_short_payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(queues: u32, pages_max: u32) -> MachineLimits {
        MachineLimits {
            page: 4096,
            pages_max,
            queues,
        }
    }

    #[test]
    fn a_payload_is_never_below_what_the_kernel_demands() {
        for pages_max in [1, 2, 16, 256, 65535] {
            for memory_bound in [None, Some(0), Some(8 << 20), Some(1 << 40)] {
                let options = MountOptions {
                    memory_bound,
                    ..MountOptions::default()
                };
                let sizing = Sizing::within(&options, limits(4, pages_max));
                assert!(sizing.payload >= MIN_PAYLOAD);
                assert!(sizing.payload >= sizing.max_write as usize);
                assert!(sizing.max_write <= pages_max * 4096);
            }
        }
    }

    #[test]
    fn many_queues_in_little_memory_get_smaller_requests() {
        let small = MountOptions {
            memory_bound: Some(32 << 20),
            ..MountOptions::default()
        };
        assert_eq!(Sizing::within(&small, limits(2, 256)).max_write, 1 << 20);
        assert_eq!(Sizing::within(&small, limits(16, 256)).max_write, 256 << 10);
        assert_eq!(
            Sizing::within(&small, limits(512, 256)).max_write,
            128 << 10
        );
    }

    #[test]
    fn a_depth_below_what_hits_need_is_raised() {
        let options = MountOptions {
            queue_depth: Some(1),
            ..MountOptions::default()
        };
        let sizing = Sizing::within(&options, limits(2, 256));
        assert_eq!((sizing.depth, sizing.depth_max), (DEPTH_MIN, 4 * DEPTH_MIN));
    }
}
