//! Folders, names and what they name: each folder as its readers see it and as the disk has it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path};

use rustix::io::Errno;

use super::loss::Lots;
use super::pages::Content;
use crate::DirEntry;

/// What a name stands for. Never used twice on one disk.
pub(super) type Ino = u64;

/// The top folder. Its own name is always durable.
const ROOT: Ino = 0;

/// A change of a folder that its disk has not seen yet.
#[derive(Clone, Debug)]
enum Change {
    /// The name stands for this from now on.
    Link { name: String, ino: Ino },
    /// The name is gone.
    Unlink { name: String },
    /// Within one folder: both names change at once.
    Rename { old: String, new: String },
}

/// A folder.
#[derive(Clone, Debug, Default)]
struct Folder {
    entries: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
    /// What leads from `durable` to `entries`, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Kind {
    File(Content),
    Folder(Folder),
}

#[derive(Clone, Debug)]
struct Inode {
    kind: Kind,
    /// Names that readers see.
    names: u32,
    /// Those, the ones on the disk, and the ones on their way there: at 0, with no handle, it is forgotten.
    references: u32,
    handles: u32,
    /// How often writing back its pages has failed. A handle reports each failure that it has lived through, once.
    failures: u64,
}

impl Inode {
    fn new(kind: Kind) -> Self {
        Self { kind, names: 0, references: 0, handles: 0, failures: 0 }
    }

    fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }

    /// Pages it takes from the disk: none once nobody can reach it, though a power loss may bring it back.
    fn charged(&self) -> u64 {
        match &self.kind {
            Kind::File(content) if self.names > 0 || self.handles > 0 => content.charged(),
            _ => 0,
        }
    }
}

/// All folders and files.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    inodes: HashMap<Ino, Inode>,
    next: Ino,
    /// Pages taken by all files.
    used: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut root = Inode::new(Kind::Folder(Folder::default()));
        (root.names, root.references) = (1, 1);
        Self { inodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, used: 0 }
    }

    /// Pages that files take.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &Path) -> Result<Ino, Errno> {
        let mut ino = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let name = name.to_str().ok_or(Errno::ILSEQ)?;
                    ino = *self.folder(ino)?.entries.get(name).ok_or(Errno::NOENT)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
            }
        }
        Ok(ino)
    }

    /// The folder that holds the last name of a path, and that name.
    fn place(&self, path: &Path) -> Result<(Ino, String), Errno> {
        let name = path.file_name().ok_or(Errno::BUSY)?.to_str().ok_or(Errno::ILSEQ)?;
        let parent = self.find(path.parent().ok_or(Errno::BUSY)?)?;
        self.folder(parent)?;
        Ok((parent, name.to_owned()))
    }

    pub(super) fn is_folder(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(Inode::is_folder)
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<Ino, Errno> {
        self.create(path, Kind::File(Content::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> Result<(), Errno> {
        self.create(path, Kind::Folder(Folder::default())).map(drop)
    }

    fn create(&mut self, path: &Path, kind: Kind) -> Result<Ino, Errno> {
        let (parent, name) = self.place(path)?;
        if self.folder(parent)?.entries.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, Inode::new(kind));
        self.link(parent, name, ino)?;
        Ok(ino)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<(), Errno> {
        let ino = self.find(path)?;
        if !self.folder(ino)?.entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        let (parent, name) = self.place(path)?;
        self.remove_name(parent, name)
    }

    pub(super) fn unlink(&mut self, path: &Path) -> Result<(), Errno> {
        if self.is_folder(self.find(path)?) {
            return Err(Errno::ISDIR);
        }
        let (parent, name) = self.place(path)?;
        self.remove_name(parent, name)
    }

    pub(super) fn rename(&mut self, old: &Path, new: &Path) -> Result<(), Errno> {
        let moved = self.find(old)?;
        let (from, old_name) = self.place(old)?;
        let (to, new_name) = self.place(new)?;
        if self.is_folder(moved) && new != old && new.starts_with(old) {
            return Err(Errno::INVAL);
        }
        if let Some(&replaced) = self.folder(to)?.entries.get(&new_name) {
            if replaced == moved {
                return Ok(());
            }
            match (self.is_folder(moved), self.folder(replaced)) {
                (false, Ok(_)) => return Err(Errno::ISDIR),
                (true, Err(_)) => return Err(Errno::NOTDIR),
                (true, Ok(folder)) if !folder.entries.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        if from != to {
            // Two folders, two changes: without a sync of both the name may be in either, both or none.
            self.link(to, new_name, moved)?;
            return self.remove_name(from, old_name);
        }
        let folder = self.folder_mut(to)?;
        folder.entries.remove(&old_name);
        let replaced = folder.entries.insert(new_name.clone(), moved);
        folder.pending.push(Change::Rename { old: old_name, new: new_name });
        if let Some(replaced) = replaced {
            self.release(replaced, true);
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, Errno> {
        let folder = self.folder(self.find(dir)?)?;
        let entry =
            |(name, ino): (&String, &Ino)| DirEntry { name: name.clone(), is_dir: self.is_folder(*ino) };
        Ok(folder.entries.iter().map(entry).collect())
    }

    /// The names of a folder are on the disk as they are now.
    pub(super) fn sync_dir(&mut self, dir: Ino) -> Result<(), Errno> {
        let folder = self.folder_mut(dir)?;
        let mut gone = Vec::new();
        for change in std::mem::take(&mut folder.pending) {
            // A link's reference moves from the pending change to the durable name.
            gone.extend(apply(&mut folder.durable, change));
        }
        for ino in gone {
            self.release(ino, false);
        }
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        let mut inos: Vec<Ino> = self.inodes.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            match self.inodes.get_mut(&ino).map(|inode| &mut inode.kind) {
                Some(Kind::File(content)) => content.sync(),
                // It is a folder, so this cannot fail.
                Some(Kind::Folder(_)) => {
                    let _ = self.sync_dir(ino);
                }
                None => {}
            }
        }
    }

    pub(super) fn open(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.handles += 1;
        }
    }

    pub(super) fn close(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let before = inode.charged();
        inode.handles = inode.handles.saturating_sub(1);
        self.used = (self.used + inode.charged()).saturating_sub(before);
        self.forget(ino);
    }

    pub(super) fn open_files(&self) -> usize {
        let in_use = |inode: &&Inode| match &inode.kind {
            Kind::File(content) => inode.handles > 0 || content.is_mapped(),
            Kind::Folder(_) => false,
        };
        self.inodes.values().filter(in_use).count()
    }

    pub(super) fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match self.inodes.get(&ino).map(|inode| &inode.kind) {
            Some(Kind::File(content)) => Ok(content),
            _ => Err(Errno::BADF),
        }
    }

    /// Changes the content of a file and counts the pages that it takes then.
    pub(super) fn change<T>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Content) -> io::Result<T>,
    ) -> io::Result<T> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::BADF)?;
        let before = inode.charged();
        let Kind::File(content) = &mut inode.kind else { return Err(Errno::BADF.into()) };
        let result = change(content);
        self.used = (self.used + inode.charged()).saturating_sub(before);
        result
    }

    pub(super) fn failures(&self, ino: Ino) -> u64 {
        self.inodes.get(&ino).map_or(0, |inode| inode.failures)
    }

    /// Writing back what is dirty of a file fails.
    pub(super) fn fail_writeback(&mut self, ino: Ino) {
        if let Some(Inode { kind: Kind::File(content), failures, .. }) = self.inodes.get_mut(&ino) {
            content.lose_dirty();
            *failures += 1;
        }
    }

    /// What the next process finds after this one died: all that readers saw, but no handle and no map.
    pub(super) fn after_death(mut self) -> Self {
        for inode in self.inodes.values_mut() {
            if let Kind::File(content) = &mut inode.kind {
                content.forget_maps();
            }
        }
        let open: Vec<Ino> =
            self.inodes.iter().filter(|(_, inode)| inode.handles > 0).map(|(ino, _)| *ino).collect();
        for ino in open {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.handles = 1;
            }
            self.close(ino);
        }
        self
    }

    /// What the disk holds after a power loss.
    pub(super) fn after_power_loss(&self, lots: &mut Lots) -> Self {
        let mut left = Self::new();
        let mut seen = HashMap::from([(ROOT, ROOT)]);
        let mut folders = vec![ROOT];
        while let Some(old_dir) = folders.pop() {
            let (Ok(old), Some(&new_dir)) = (self.folder(old_dir), seen.get(&old_dir)) else { continue };
            let mut entries = old.durable.clone();
            for change in old.pending.iter().take(lots.names(old.pending.len())) {
                let _ = apply(&mut entries, change.clone());
            }
            for (name, old_ino) in entries {
                let Some(inode) = self.inodes.get(&old_ino) else { continue };
                let new_ino = match seen.get(&old_ino) {
                    // Two folders cannot hold one; the check of the file system leaves the first.
                    Some(_) if inode.is_folder() => continue,
                    Some(known) => *known,
                    None => {
                        let kind = match &inode.kind {
                            Kind::File(content) => Kind::File(content.after_power_loss(lots)),
                            Kind::Folder(_) => {
                                folders.push(old_ino);
                                Kind::Folder(Folder::default())
                            }
                        };
                        let ino = left.next;
                        left.next += 1;
                        left.inodes.insert(ino, Inode::new(kind));
                        seen.insert(old_ino, ino);
                        ino
                    }
                };
                // It is a folder of `left`, so neither this nor the sync below can fail.
                let _ = left.link(new_dir, name, new_ino);
            }
            let _ = left.sync_dir(new_dir);
        }
        left.used = left.inodes.values().map(Inode::charged).sum();
        left
    }

    fn folder(&self, ino: Ino) -> Result<&Folder, Errno> {
        match self.inodes.get(&ino).map(|inode| &inode.kind) {
            Some(Kind::Folder(folder)) => Ok(folder),
            Some(Kind::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn folder_mut(&mut self, ino: Ino) -> Result<&mut Folder, Errno> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.kind) {
            Some(Kind::Folder(folder)) => Ok(folder),
            Some(Kind::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// Lets a name stand for `ino`, instead of what it stood for.
    fn link(&mut self, dir: Ino, name: String, ino: Ino) -> Result<(), Errno> {
        let folder = self.folder_mut(dir)?;
        let replaced = folder.entries.insert(name.clone(), ino);
        folder.pending.push(Change::Link { name, ino });
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.names += 1;
            inode.references += 2;
        }
        if let Some(replaced) = replaced {
            self.release(replaced, true);
        }
        Ok(())
    }

    fn remove_name(&mut self, dir: Ino, name: String) -> Result<(), Errno> {
        let folder = self.folder_mut(dir)?;
        let ino = folder.entries.remove(&name).ok_or(Errno::NOENT)?;
        folder.pending.push(Change::Unlink { name });
        self.release(ino, true);
        Ok(())
    }

    /// One reference less; `visible` if it was a name that readers saw.
    fn release(&mut self, ino: Ino, visible: bool) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let before = inode.charged();
        inode.references = inode.references.saturating_sub(1);
        inode.names = inode.names.saturating_sub(u32::from(visible));
        self.used = (self.used + inode.charged()).saturating_sub(before);
        self.forget(ino);
    }

    /// Drops what nothing refers to any more, and then what only that referred to.
    fn forget(&mut self, ino: Ino) {
        if self.inodes.get(&ino).is_none_or(|inode| inode.references > 0 || inode.handles > 0) {
            return;
        }
        let Some(Inode { kind: Kind::Folder(folder), .. }) = self.inodes.remove(&ino) else { return };
        let pending = folder.pending.into_iter().filter_map(|change| match change {
            Change::Link { ino, .. } => Some(ino),
            Change::Unlink { .. } | Change::Rename { .. } => None,
        });
        for ino in folder.durable.into_values().chain(pending) {
            self.release(ino, false);
        }
        for ino in folder.entries.into_values() {
            self.release(ino, true);
        }
    }
}

/// Applies a change to the names of a folder; returns what lost its name by it.
fn apply(names: &mut BTreeMap<String, Ino>, change: Change) -> Option<Ino> {
    match change {
        Change::Link { name, ino } => names.insert(name, ino),
        Change::Unlink { name } => names.remove(&name),
        Change::Rename { old, new } => {
            let ino = names.remove(&old)?;
            names.insert(new, ino)
        }
    }
}
