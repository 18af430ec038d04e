//! Which call fails, and how.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

/// A call of [`crate::Disk`], [`crate::File`] or [`crate::Folder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Op {
    Open,
    Create,
    CreateDir,
    RemoveDir,
    List,
    Exists,
    Rename,
    Unlink,
    OpenDir,
    SyncDir,
    SyncFs,
    Space,
    Lock,
    Read,
    ReadCached,
    Write,
    SyncData,
    SyncAll,
    SetLen,
    Len,
    Allocate,
    Trim,
    StartWriteback,
    DropCache,
    Map,
}

impl Op {
    /// Whether it changes what is on the disk or how much of it is durable: after each of these a power loss may
    /// find something else. [`Op::Create`] is the `open` that creates or empties.
    pub fn changes(self) -> bool {
        use Op::{
            Allocate, Create, CreateDir, Lock, RemoveDir, Rename, SetLen, SyncAll, SyncData, SyncDir, SyncFs,
            Trim, Unlink, Write,
        };
        matches!(
            self,
            Create
                | CreateDir
                | RemoveDir
                | Rename
                | Unlink
                | SyncDir
                | SyncFs
                | Lock
                | Write
                | SyncData
                | SyncAll
                | SetLen
                | Allocate
                | Trim
        )
    }
}

/// What happens instead of the call, or before it.
#[derive(Clone)]
pub enum Effect {
    /// It fails and does nothing.
    Fail(Fault),
    /// A write takes at most this many bytes and says so; a read gives at most so many.
    Short(usize),
    /// A write puts this many bytes in place and then fails.
    Torn(usize, Fault),
    /// A sync fails, the pages it should have written count as clean from then on and are lost, though they read
    /// well until they leave the cache. The next sync succeeds. Only over a [`crate::MemDisk`]; elsewhere it only
    /// fails.
    LoseDirty,
    /// It reports success and does nothing: a planted bug, such as a sync left out. Only for calls that return
    /// nothing but success.
    Skip,
    /// Runs this first, on the caller's thread: it may wait as long as it likes to make the call slow.
    Hook(Arc<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Fail(fault) => write!(f, "Fail({fault:?})"),
            Effect::Short(n) => write!(f, "Short({n})"),
            Effect::Torn(n, fault) => write!(f, "Torn({n}, {fault:?})"),
            Effect::LoseDirty => f.write_str("LoseDirty"),
            Effect::Skip => f.write_str("Skip"),
            Effect::Hook(_) => f.write_str("Hook"),
        }
    }
}

/// An error as the system would report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO: the device failed.
    Io,
    /// ENOSPC: the disk is full.
    NoSpace,
    /// EROFS: the file system was remounted read-only after an error.
    ReadOnly,
    /// EMFILE: no more descriptors.
    TooManyFiles,
}

impl From<Fault> for std::io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io => Errno::IO,
            Fault::NoSpace => Errno::NOSPC,
            Fault::ReadOnly => Errno::ROFS,
            Fault::TooManyFiles => Errno::MFILE,
        }
        .into()
    }
}

/// Calls that have an effect: those of some operations, on some paths, from the nth on, some times.
#[derive(Clone)]
pub struct Rule {
    ops: Vec<Op>,
    path: Arc<dyn Fn(&Path) -> bool + Send + Sync>,
    /// How many matching calls still pass.
    skipped: u64,
    /// How many matching calls it then hits.
    left: u64,
    pub(super) effect: Effect,
    pub(super) fired: u64,
}

impl Rule {
    /// Every call of these operations; narrowed by the methods below.
    pub fn on(ops: impl IntoIterator<Item = Op>, effect: Effect) -> Self {
        Self {
            ops: ops.into_iter().collect(),
            path: Arc::new(|_| true),
            skipped: 0,
            left: u64::MAX,
            effect,
            fired: 0,
        }
    }

    /// Only on paths for which this holds. A file goes by the path it was opened under, a rename by the old one.
    pub fn path(mut self, path: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        self.path = Arc::new(path);
        self
    }

    /// Only on names that end so: `.log`, `checkpoint.tmp`.
    pub fn ends_with(self, suffix: &str) -> Self {
        let suffix = suffix.to_owned();
        self.path(move |path| path.to_string_lossy().ends_with(&suffix))
    }

    /// From the nth matching call on; the first is 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.skipped = n.saturating_sub(1);
        self
    }

    /// So many times at most.
    pub fn times(mut self, n: u64) -> Self {
        self.left = n;
        self
    }

    /// Once.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Counts a call; whether it is hit.
    pub(super) fn hits(&mut self, op: Op, path: &Path) -> bool {
        if self.left == 0 || !self.ops.contains(&op) || !(self.path)(path) {
            return false;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return false;
        }
        self.left -= 1;
        self.fired += 1;
        true
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?} -> {:?}, fired {})", self.ops, self.effect, self.fired)
    }
}
