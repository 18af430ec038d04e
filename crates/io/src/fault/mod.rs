//! A disk that fails on command, over any other.
//!
//! It counts and, if asked, notes every call, so that a test can say "and now the process dies" after each of them
//! in turn ([`FaultDisk::die_after`]). It invents nothing: without rules it is the disk below it.

mod file;
mod rule;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::{FaultFile, FaultFolder};
pub use self::rule::{Effect, Fault, Op, Rule};
use crate::{Access, DirEntry, Disk, File, Folder, LockError, LockGuard, MemDisk, Space};

/// A disk that does what its rules say. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct FaultDisk {
    base: Base,
    control: Arc<Mutex<Control>>,
}

#[derive(Clone)]
enum Base {
    Any(Arc<dyn Disk>),
    Mem(MemDisk),
}

/// One call, as noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was called.
    pub op: Op,
    /// On what: for a file the path it was opened under, for a rename the old one.
    pub path: PathBuf,
    /// Whether a rule hit it.
    pub hit: bool,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

#[derive(Default)]
struct Control {
    rules: Vec<Option<Rule>>,
    trace: Option<Vec<Event>>,
    changes: u64,
    /// Every call fails once `changes` has come this far.
    dies_after: Option<u64>,
}

impl Control {
    fn is_dead(&self) -> bool {
        self.dies_after.is_some_and(|last| self.changes >= last)
    }
}

impl FaultDisk {
    /// Over any disk.
    pub fn new(base: Arc<dyn Disk>) -> Self {
        Self::over(Base::Any(base))
    }

    /// Over a disk in memory, which can also lose what a failed sync should have written.
    pub fn over_mem(base: &MemDisk) -> Self {
        Self::over(Base::Mem(base.clone()))
    }

    fn over(base: Base) -> Self {
        Self { base, control: Arc::default() }
    }

    /// Adds a rule. Of several that match a call the first decides.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut control = self.control.lock();
        control.rules.push(Some(rule));
        RuleId(control.rules.len() - 1)
    }

    /// Takes a rule away.
    pub fn remove(&self, id: RuleId) {
        if let Some(rule) = self.control.lock().rules.get_mut(id.0) {
            *rule = None;
        }
    }

    /// How often a rule has hit; 0 once it was taken away.
    pub fn fired(&self, id: RuleId) -> u64 {
        self.control.lock().rules.get(id.0).and_then(Option::as_ref).map_or(0, |rule| rule.fired)
    }

    /// How many calls that change something ([`Op::changes`]) were made so far, whether they succeeded or not.
    pub fn changes(&self) -> u64 {
        self.control.lock().changes
    }

    /// Lets `n` more calls change something. From then on everything fails, reads too, as if the process had died
    /// after the last of them: the test goes on with the [`MemDisk`] below, after [`MemDisk::kill`] or
    /// [`MemDisk::crash`].
    pub fn die_after(&self, n: u64) {
        let mut control = self.control.lock();
        control.dies_after = Some(control.changes.saturating_add(n));
    }

    /// Whether that moment has come.
    pub fn is_dead(&self) -> bool {
        self.control.lock().is_dead()
    }

    /// Notes every call from now on.
    pub fn start_trace(&self) {
        self.control.lock().trace = Some(Vec::new());
    }

    /// What was noted; nothing is noted any more.
    pub fn take_trace(&self) -> Vec<Event> {
        self.control.lock().trace.take().unwrap_or_default()
    }

    fn base(&self) -> &dyn Disk {
        match &self.base {
            Base::Any(disk) => &**disk,
            Base::Mem(disk) => disk,
        }
    }

    /// What is to happen at this call, for calls that know more than failing.
    fn effect(&self, op: Op, path: &Path) -> io::Result<Option<Effect>> {
        let effect = {
            let mut control = self.control.lock();
            if control.is_dead() {
                return Err(io::Error::other("the process is dead: its last call was made"));
            }
            control.changes += u64::from(op.changes());
            let mut rules = control.rules.iter_mut().flatten();
            let effect = rules.find_map(|rule| rule.hits(op, path).then(|| rule.effect.clone()));
            if let Some(trace) = &mut control.trace {
                trace.push(Event { op, path: path.to_owned(), hit: effect.is_some() });
            }
            effect
        };
        match effect {
            Some(Effect::Hook(hook)) => {
                hook();
                Ok(None)
            }
            Some(Effect::Fail(fault)) => Err(fault.into()),
            other => Ok(other),
        }
    }

    /// The same for calls of which nothing is left when they are torn, short or lose something: they fail.
    fn check(&self, op: Op, path: &Path) -> io::Result<Turn> {
        match self.effect(op, path)? {
            None => Ok(Turn::Call),
            Some(Effect::Skip) => Ok(Turn::Skip),
            Some(Effect::Torn(_, fault)) => Err(fault.into()),
            Some(_) => Err(Fault::Io.into()),
        }
    }

    /// A call that says nothing but that it has succeeded.
    fn plain(&self, op: Op, path: &Path, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.check(op, path)? {
            Turn::Call => call(),
            Turn::Skip => Ok(()),
        }
    }

    /// A call that answers something, and so cannot be left out.
    fn answering<T>(&self, op: Op, path: &Path, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.check(op, path)? {
            Turn::Call => call(),
            Turn::Skip => Err(Fault::Io.into()),
        }
    }
}

/// Whether the call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Call,
    Skip,
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultDisk({:?})", self.base())
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let op = match access {
            Access::Read | Access::Write => Op::Open,
            Access::CreateNew | Access::CreateOrTruncate => Op::Create,
        };
        self.answering(op, path, || {
            let (file, mem): (Arc<dyn File>, _) = match &self.base {
                Base::Any(disk) => (disk.open(path, access)?, None),
                Base::Mem(disk) => {
                    let file = Arc::new(disk.open_mem(path, access)?);
                    (Arc::clone(&file) as Arc<dyn File>, Some(file))
                }
            };
            Ok(Arc::new(FaultFile { disk: self.clone(), path: path.to_owned(), file, mem }) as Arc<dyn File>)
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.plain(Op::CreateDir, path, || self.base().create_dir(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.plain(Op::RemoveDir, path, || self.base().remove_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.answering(Op::List, dir, || self.base().list(dir))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.answering(Op::Exists, path, || self.base().exists(path))
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        self.plain(Op::Rename, old, || self.base().rename(old, new))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.plain(Op::Unlink, path, || self.base().unlink(path))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn Folder>> {
        self.answering(Op::OpenDir, dir, || {
            let folder = self.base().open_dir(dir)?;
            Ok(Arc::new(FaultFolder { disk: self.clone(), path: dir.to_owned(), folder }) as Arc<dyn Folder>)
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.answering(Op::Space, path, || self.base().space(path))
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<LockGuard, LockError> {
        self.answering(Op::Lock, path, || Ok(())).map_err(LockError::Io)?;
        self.base().lock(path, owner)
    }
}
