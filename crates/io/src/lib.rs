//! The file system as Weir sees it: one small trait, so that what the log does to a disk can be watched,
//! broken and cut off.
//!
//! Three implementations pass one conformance suite: [`RealDisk`] (Linux), [`MemDisk`] (in memory, with power
//! loss: what was not synced may survive or not, page by page) and [`FaultDisk`] (any of them, failing on
//! command). Nothing above this crate opens a file by itself, and this is the one crate with `unsafe` in it.
//!
//! It is not a cache and not asynchronous: every call is a system call on the caller's thread. Callers decide
//! what may run on an executor (a page-cache write) and what may not (a sync, a cold read).

mod dice;
mod dirs;
mod disk;
mod fault;
mod mem;
mod raw;
mod real;

pub use dice::Dice;
pub use dirs::make_dirs;
pub use disk::{Access, DirEntry, Disk, File, Folder, LockError, LockGuard, Mapping, Space};
pub use fault::{Effect, Event, Fault, FaultDisk, Op, Rule, RuleId};
pub use mem::{MemDisk, Survival};
pub use real::RealDisk;
