//! The allocator, in a process of its own: what it keeps is seen in the memory of the whole process.

use ackfs::heap;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Network buffers come and go between names that stay.
#[test]
fn what_is_freed_between_what_stays_goes_back() {
    heap::bound();
    let mut buffers = Vec::new();
    let mut names = Vec::new();
    for _ in 0..200 {
        buffers.push(vec![1_u8; 500 << 10]);
        names.push(Box::new([1_u8; 100]));
    }
    let full = resident();
    drop(buffers);
    let kept = resident();
    assert!(kept > full - (16 << 20), "it is kept: {kept} of {full}");
    heap::trim();
    let left = resident();
    assert!(left < full - (80 << 20), "and goes back: {left} of {full}");
    assert!(names.iter().all(|name| name[99] == 1));
}
