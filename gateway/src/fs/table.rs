//! What the kernel holds.

mod forgetting;

pub mod handles;
pub mod inode;
