//! Gives back the blocks of deleted files, slowly: taking away a file of 1 GiB at once holds up every sync beside it
//! on some file systems.
//!
//! The segments of a log go in order: as long as one is there, so are those behind it. A start knows where a log begins
//! by what ends there, and a hole in front of it would look like segments that were lost. So one that cannot be deleted
//! now keeps its place, and is tried again.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use weir_io::{Access, Disk, File};
use weir_runtime::{Seldom, Step};

use crate::dir::DirCore;
use crate::error::Error;
use crate::flusher::Waker;

/// So much is given back at a time, and then it rests.
const STEP_BYTES: u64 = 32 << 20;
const REST: Duration = Duration::from_millis(20);
/// So long until what could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// That something cannot be deleted is said so often.
const SAID: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(crate) struct DeleteQueue {
    paths: Mutex<VecDeque<PathBuf>>,
    waker: RwLock<Option<Waker>>,
}

impl DeleteQueue {
    /// Takes a file, or a folder of files, away. After a crash recovery, or the next start, does it again.
    pub(crate) fn push(&self, path: PathBuf) {
        self.paths.lock().push_back(path);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.read() {
            waker();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.lock().is_empty()
    }

    fn pop(&self) -> Option<PathBuf> {
        self.paths.lock().pop_front()
    }

    /// It could not be deleted: what lies in other folders comes first, what lies in its own stays behind it.
    fn put_back(&self, path: PathBuf) {
        let mut paths = self.paths.lock();
        let (own, others): (Vec<_>, Vec<_>) =
            paths.drain(..).partition(|other| other.parent() == path.parent());
        paths.extend(others);
        paths.push_back(path);
        paths.extend(own);
    }
}

/// Starts the loop.
pub(crate) fn start(dir: &Arc<DirCore>) {
    let of = Arc::clone(dir);
    let mut shrinking: Option<(Arc<dyn File>, u64)> = None;
    let said = Seldom::new(SAID);
    let waker = dir.os.spawn_loop(
        "deleter",
        Box::new(move || {
            let Some(_held) = of.hold().filter(|_| !of.failed()) else { return Step::Done };
            if let Some((file, left)) = shrinking.take() {
                let left = left.saturating_sub(STEP_BYTES);
                if file.set_len(left).is_ok() && left > 0 {
                    shrinking = Some((file, left));
                }
                return Step::Wait(REST);
            }
            let Some(path) = of.deletes.pop() else { return Step::Wait(IDLE) };
            match take_name(&*of.handles.disk, &path) {
                Ok(file) => shrinking = file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    if said.now().is_some() {
                        tracing::warn!(path = %path.display(), %error, "could not be deleted: it is tried again");
                    }
                    of.deletes.put_back(path);
                    return Step::Wait(RETRY);
                }
            }
            Step::Again
        }),
    );
    *dir.deletes.waker.write() = Some(waker);
}

/// Takes a name away. What is left to give back, if it is much.
fn take_name(disk: &dyn Disk, path: &Path) -> io::Result<Option<(Arc<dyn File>, u64)>> {
    if is_deleted_name(path) {
        for entry in disk.list(path)? {
            // Small files, and large ones whose blocks go with the next line at once: a folder is deleted by steps
            // only if its files were pushed one by one.
            disk.unlink(&path.join(entry.name))?;
        }
        disk.remove_dir(path)?;
        return Ok(None);
    }
    // Whoever cannot have a handle gives its blocks back at once.
    let opened = disk.open(path, Access::Write).and_then(|file| Ok((file.len()?, file)));
    disk.unlink(path)?;
    // A sidecar may still be mapped by somebody who reads in it, whom cutting it would end (rule 37).
    let by_steps = |len: u64| len > STEP_BYTES && path.extension().is_some_and(|kind| kind == "log");
    Ok(opened.ok().filter(|(len, _)| by_steps(*len)).map(|(len, file)| (file, len)))
}

/// The end of the name of a partition's folder that is being deleted.
pub(crate) const DELETED: &str = "deleted";

/// Whether a folder has such a name.
pub(crate) fn is_deleted_name(folder: &Path) -> bool {
    folder.extension().is_some_and(|kind| kind == DELETED)
}

/// What a folder is called while it is being deleted.
pub(crate) fn deleted_name(folder: &Path) -> PathBuf {
    let mut gone = folder.as_os_str().to_owned();
    gone.push(".");
    gone.push(DELETED);
    gone.into()
}

/// Deletes a partition's folder: durably gone when this returns, its blocks by and by.
pub(crate) fn delete_folder(dir: &DirCore, path: &Path) -> Result<(), Error> {
    let disk = &dir.handles.disk;
    let gone = deleted_name(path);
    disk.rename(path, &gone).map_err(Error::io(path, "rename"))?;
    dir.sync_own_names()?;
    push_folder(dir, &gone).map_err(Error::io(&*gone, "list"))
}

/// Queues what is in a folder that is being deleted, then the folder.
pub(crate) fn push_folder(dir: &DirCore, path: &Path) -> io::Result<()> {
    for entry in dir.handles.disk.list(path)? {
        dir.deletes.push(path.join(entry.name));
    }
    dir.deletes.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;

    use super::*;

    #[test]
    fn only_what_nobody_has_mapped_goes_by_steps() {
        let disk = MemDisk::new(1);
        for (name, steps) in [("/0.log", true), ("/0.seal", false), ("/0.tail", false), ("/0.start", false)] {
            let path = Path::new(name);
            let file = disk.open(path, Access::CreateNew).unwrap();
            file.set_len(STEP_BYTES + 1).unwrap();
            let taken = take_name(&disk, path).unwrap();
            assert_eq!(taken.map(|(_, len)| len), steps.then_some(STEP_BYTES + 1), "{name}");
            assert!(!disk.exists(path).unwrap());
        }
    }
}
