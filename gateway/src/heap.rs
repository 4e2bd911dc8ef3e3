//! How the C library's allocator is to keep memory, so that what the budgets count is what the process
//! has. Left to itself, glibc gives each thread up to eight times the cores' number of arenas to choose
//! from, and after the first large buffer is freed it takes buffers of up to 32 MiB from them. Bytes
//! that come by one thread and go by another then leave holes that no other arena can use: a mount with
//! `--memory 64MiB` held 172 MiB after some minutes of writes of mixed sizes to three files.
//!
//! Small allocations come from each thread's own cache either way, so one arena costs no time that
//! could be measured.
//!
//! What is freed between small allocations that stay, as those of names and metadata, goes back only when
//! it is asked for ([`trim`]): a mount on which tens of thousands of files had been made and many of them
//! written held 109 MiB that nobody used.

#![allow(unsafe_code)] // mallopt(3) has no safe wrapper

/// From this size on a buffer is a mapping of its own, which goes back to the system when it is freed,
/// in bytes. Lower, the page faults of every network buffer would cost as much time again.
#[cfg(target_env = "gnu")]
const MAPPED_MIN: libc::c_int = 1 << 20;

/// Free memory that the heap keeps for what comes next, in bytes.
#[cfg(target_env = "gnu")]
const SPARE_MAX: u32 = 16 << 20;

/// Gives free memory back to the system if there is much of it. To be called now and then while there is
/// work. Holds the allocator up for as long as the kernel takes to unmap what is given back.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo takes nothing and gives numbers. (They wrap at 4 GiB, and then memory is given
        // back later; mallinfo2, which does not, needs a newer C library.)
        let free = unsafe { libc::mallinfo() }.fordblks as u32;
        if free > SPARE_MAX {
            // SAFETY: malloc_trim gives back pages that no allocation is in.
            unsafe { libc::malloc_trim(0) };
        }
    }
}

/// Sets the allocator up. For the first line of `main`: threads that exist already keep their arenas.
pub fn bound() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, MAPPED_MIN)] {
        // SAFETY: mallopt takes two integers and keeps no pointer; an unknown parameter or value
        // changes nothing (it returns 0, and the allocator goes on as it was).
        unsafe { libc::mallopt(parameter, value) };
    }
}
