//! A disk in memory against a plain model of it: random calls, and after each of them what readers see, what a
//! power loss leaves at its two ends, and that everything between is made of what was there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weir_io::{Access, Disk, MemDisk, Survival};

const PAGE: usize = 4096;
const ROOT: &str = "/d";

#[derive(Clone, Debug)]
enum Call {
    Create(u8),
    Unlink(u8),
    Rename(u8, u8),
    Write(u8, u16, u16),
    SetLen(u8, u16),
    SyncData(u8),
    SyncDir,
    SyncFs,
    DropCache(u8),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let name = || 0..4u8;
    // Ends of pages are where mistakes live.
    let at = || prop_oneof![0..20_000u16, (0..5u16).prop_map(|page| page * PAGE as u16)];
    let call = prop_oneof![
        3 => name().prop_map(Call::Create),
        1 => name().prop_map(Call::Unlink),
        2 => (name(), name()).prop_map(|(a, b)| Call::Rename(a, b)),
        8 => (name(), at(), 1..9_000u16).prop_map(|(name, pos, len)| Call::Write(name, pos, len)),
        2 => (name(), at()).prop_map(|(name, len)| Call::SetLen(name, len)),
        3 => name().prop_map(Call::SyncData),
        2 => Just(Call::SyncDir),
        1 => Just(Call::SyncFs),
        1 => name().prop_map(Call::DropCache),
    ];
    prop::collection::vec(call, 1..40)
}

/// A file: every content it had since it was last synced, the durable one first.
#[derive(Clone, Debug, Default)]
struct FileModel(Vec<Vec<u8>>);

impl FileModel {
    fn live(&self) -> &Vec<u8> {
        self.0.last().unwrap()
    }

    fn durable(&self) -> &Vec<u8> {
        self.0.first().unwrap()
    }

    fn sync(&mut self) {
        self.0 = vec![self.live().clone()];
    }

    /// Whether a power loss may leave this.
    fn allows(&self, found: &[u8]) -> bool {
        let lens = self.0.iter().map(Vec::len);
        let (low, high) = (lens.clone().min().unwrap(), lens.max().unwrap());
        (low..=high).contains(&found.len())
            && found.chunks(PAGE).enumerate().all(|(index, page)| {
                self.0.iter().any(|content| {
                    let old = content.get(index * PAGE..).unwrap_or_default();
                    let zeros = std::iter::repeat(&0);
                    page.iter().eq(old.iter().take(PAGE).chain(zeros).take(page.len()))
                })
            })
    }
}

/// Each row of names since the folder was last synced, the durable one first; files never go away.
#[derive(Clone, Debug)]
struct Model {
    names: Vec<BTreeMap<String, usize>>,
    files: Vec<FileModel>,
}

impl Model {
    fn file(&mut self, name: u8) -> Option<&mut FileModel> {
        let index = *self.names.last().unwrap().get(&name_of(name))?;
        self.files.get_mut(index)
    }

    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        let mut names = self.names.last().unwrap().clone();
        change(&mut names);
        self.names.push(names);
    }

    fn sync_names(&mut self) {
        self.names = vec![self.names.last().unwrap().clone()];
    }
}

fn name_of(name: u8) -> String {
    format!("f{name}")
}

fn path(name: u8) -> PathBuf {
    Path::new(ROOT).join(name_of(name))
}

fn found(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list(Path::new(ROOT)).unwrap().into_iter().map(|entry| entry.name);
    names
        .map(|name| {
            let content = disk.read(&Path::new(ROOT).join(&name), 1 << 20).unwrap().to_vec();
            (name, content)
        })
        .collect()
}

fn step(disk: &MemDisk, model: &mut Model, call: &Call, fill: u8) {
    match *call {
        Call::Create(name) => {
            let created = disk.open(&path(name), Access::CreateNew).is_ok();
            assert_eq!(created, model.file(name).is_none());
            if created {
                model.files.push(FileModel(vec![Vec::new()]));
                let file = model.files.len() - 1;
                model.rename(|names| {
                    let _ = names.insert(name_of(name), file);
                });
            }
        }
        Call::Unlink(name) => {
            assert_eq!(disk.unlink(&path(name)).is_ok(), model.file(name).is_some());
            if model.file(name).is_some() {
                model.rename(|names| {
                    let _ = names.remove(&name_of(name));
                });
            }
        }
        Call::Rename(old, new) => {
            assert_eq!(disk.rename(&path(old), &path(new)).is_ok(), model.file(old).is_some());
            if model.file(old).is_some() {
                model.rename(|names| {
                    let file = names.remove(&name_of(old)).unwrap();
                    names.insert(name_of(new), file);
                });
            }
        }
        Call::Write(name, pos, len) => {
            let Some(file) = model.file(name) else { return };
            let handle = disk.open(&path(name), Access::Write).unwrap();
            handle.write_all_at(&vec![fill; len as usize], pos.into()).unwrap();
            let mut content = file.live().clone();
            let (pos, end) = (pos as usize, pos as usize + len as usize);
            content.resize(content.len().max(end), 0);
            content[pos..end].fill(fill);
            file.0.push(content);
        }
        Call::SetLen(name, len) => {
            let Some(file) = model.file(name) else { return };
            disk.open(&path(name), Access::Write).unwrap().set_len(len.into()).unwrap();
            let mut content = file.live().clone();
            content.resize(len as usize, 0);
            file.0.push(content);
        }
        Call::SyncData(name) => {
            let Some(file) = model.file(name) else { return };
            disk.open(&path(name), Access::Write).unwrap().sync_data().unwrap();
            file.sync();
        }
        Call::SyncDir => {
            disk.sync_dir(Path::new(ROOT)).unwrap();
            model.sync_names();
        }
        Call::SyncFs => {
            disk.sync_fs(Path::new(ROOT)).unwrap();
            model.sync_names();
            model.files.iter_mut().for_each(FileModel::sync);
        }
        Call::DropCache(name) => {
            let Some(_) = model.file(name) else { return };
            disk.open(&path(name), Access::Read).unwrap().drop_cache(0, 1 << 20).unwrap();
        }
    }
}

fn check(disk: &MemDisk, model: &Model, seed: u64) {
    let as_of = |names: &BTreeMap<String, usize>, pick: fn(&FileModel) -> &Vec<u8>| {
        names
            .iter()
            .map(|(name, file)| (name.clone(), pick(&model.files[*file]).clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let live = as_of(model.names.last().unwrap(), FileModel::live);
    assert_eq!(found(disk), live);
    assert_eq!(found(&disk.after_power_loss(Survival::Everything)), live);
    let durable = as_of(model.names.first().unwrap(), FileModel::durable);
    assert_eq!(found(&disk.after_power_loss(Survival::Nothing)), durable);
    let drawn = found(&disk.after_power_loss(Survival::Drawn(seed)));
    let explained = model.names.iter().any(|names| {
        names.keys().eq(drawn.keys())
            && names.iter().all(|(name, file)| model.files[*file].allows(&drawn[name]))
    });
    assert!(explained, "seed {seed}: nothing explains {:?}", drawn.keys());
    let used = live.values().map(|content| content.len().div_ceil(PAGE)).sum::<usize>();
    let space = disk.space(Path::new(ROOT)).unwrap();
    assert!(space.total_bytes - space.available_bytes <= (used * PAGE) as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_in_memory_is_its_model(seed: u64, calls in calls()) {
        let mut disk = MemDisk::new(seed);
        disk.create_dir(Path::new(ROOT)).unwrap();
        disk.sync_fs(Path::new(ROOT)).unwrap();
        let mut model = Model { names: vec![BTreeMap::new()], files: Vec::new() };
        for (n, call) in calls.iter().enumerate() {
            step(&disk, &mut model, call, n as u8 + 1);
            check(&disk, &model, seed.wrapping_add(n as u64));
        }
        // The death of the process changes nothing, not even what is dirty.
        disk = disk.kill();
        check(&disk, &model, seed);
    }
}
