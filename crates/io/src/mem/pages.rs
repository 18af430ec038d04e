//! The content of one file: pages and length, each as the page cache has it and as the disk has it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::loss::{Lots, State};
use crate::dice::Dice;

/// What a disk writes whole or not at all.
pub(super) const PAGE_BYTES: u64 = 4096;

/// No file is longer than this, as on a real one.
const FILE_BYTES_MAX: u64 = 1 << 44;

type Page = Arc<[u8; PAGE_BYTES as usize]>;

/// One page. Absent content reads as zeros.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// What a read sees.
    current: Option<Page>,
    /// What the disk holds.
    durable: Option<Page>,
    /// One of the contents it had between the two: the kernel may have written that one back.
    between: Option<Page>,
    /// Whether the next sync writes it. A page that is clean and yet differs from `durable` is one whose writing
    /// back has failed: it reads well until it leaves the cache.
    dirty: bool,
    /// Whether it can be read without the disk.
    cached: bool,
}

/// The content of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    slots: BTreeMap<u64, Slot>,
    dirty: BTreeSet<u64>,
    len: u64,
    durable_len: u64,
    /// One of the lengths it had between the two.
    between_len: Option<u64>,
    /// Pages reserved by `allocate`, as one range around all of them.
    reserved: Range<u64>,
    /// Pages that count against the disk's size: the reserved ones, and those written outside of them.
    charged: u64,
    maps: Maps,
}

/// The maps of a file, held by each of them. What becomes of a disk has none: maps end with their process.
#[derive(Debug, Default)]
struct Maps(Arc<()>);

impl Clone for Maps {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    /// A map of it, for as long as this is held.
    pub(super) fn map(&self) -> Arc<()> {
        Arc::clone(&self.maps.0)
    }

    /// Whether somebody has it mapped.
    pub(super) fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.maps.0) > 1
    }

    /// Whoever had it mapped is dead.
    pub(super) fn forget_maps(&mut self) {
        self.maps = Maps::default();
    }

    pub(super) fn read(&mut self, buf: &mut BytesMut, len: usize, pos: u64) -> usize {
        let end = self.len.min(pos.saturating_add(len as u64));
        let mut at = pos;
        while at < end {
            let (index, within, n) = page_part(at, end);
            match self.slots.get_mut(&index) {
                Some(slot) => {
                    slot.cached = true;
                    put(buf, slot.current.as_ref(), within, n);
                }
                None => buf.put_bytes(0, n),
            }
            at += n as u64;
        }
        (at - pos.min(at)) as usize
    }

    pub(super) fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> Option<usize> {
        let end = self.len.min(pos.saturating_add(len as u64));
        let mut at = pos;
        while at < end {
            let (index, within, n) = page_part(at, end);
            match self.slots.get(&index) {
                Some(slot) if !slot.cached => break,
                Some(slot) => put(buf, slot.current.as_ref(), within, n),
                None => buf.put_bytes(0, n),
            }
            at += n as u64;
        }
        (at > pos || pos >= end).then(|| at.saturating_sub(pos) as usize)
    }

    /// Writes what fits into `free` more pages; returns how many bytes that was.
    pub(super) fn write(
        &mut self,
        data: &[u8],
        pos: u64,
        free: &mut u64,
        dice: &mut Dice,
    ) -> io::Result<usize> {
        let end = self.checked_end(pos, data.len() as u64)?;
        let mut at = pos;
        let mut rest = data;
        while at < end {
            let (index, within, n) = page_part(at, end);
            let is_new = self.slots.get(&index).is_none_or(|slot| slot.current.is_none());
            if is_new && !self.reserved.contains(&index) {
                if *free == 0 {
                    break;
                }
                *free -= 1;
                self.charged += 1;
            }
            let (part, behind) = rest.split_at(n);
            let page = self.change(index, dice);
            if let Some(place) = page.get_mut(within..within + n) {
                place.copy_from_slice(part);
            }
            rest = behind;
            at += n as u64;
        }
        if at > self.len {
            self.change_len(at, dice);
        }
        Ok(data.len() - rest.len())
    }

    pub(super) fn set_len(&mut self, len: u64, dice: &mut Dice) -> io::Result<()> {
        self.checked_end(0, len)?;
        if len < self.len {
            let (index, within, _) = page_part(len, len + 1);
            if within > 0 && self.slots.get(&index).is_some_and(|slot| slot.current.is_some()) {
                let page = self.change(index, dice);
                if let Some(tail) = page.get_mut(within..) {
                    tail.fill(0);
                }
            }
            let cut: Vec<u64> =
                self.slots.range(len.div_ceil(PAGE_BYTES)..).map(|(index, _)| *index).collect();
            for index in cut {
                self.empty(index, dice);
            }
            // Cutting gives reserved blocks back too; this counts what is left.
            self.reserve(self.reserved.start..self.reserved.end.min(len.div_ceil(PAGE_BYTES)));
        }
        if len != self.len {
            self.change_len(len, dice);
        }
        Ok(())
    }

    /// Reserves the pages of a range, if `free` more pages are enough.
    pub(super) fn allocate(&mut self, pos: u64, len: u64, free: &mut u64) -> io::Result<()> {
        let end = self.checked_end(pos, len)?;
        let wanted = pos / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let before = (self.reserved.clone(), self.charged);
        self.reserve(if self.reserved.is_empty() {
            wanted
        } else {
            self.reserved.start.min(wanted.start)..self.reserved.end.max(wanted.end)
        });
        match free.checked_sub(self.charged.saturating_sub(before.1)) {
            Some(left) => *free = left,
            None => {
                (self.reserved, self.charged) = before;
                return Err(rustix::io::Errno::NOSPC.into());
            }
        }
        Ok(())
    }

    pub(super) fn trim(&mut self) {
        self.reserve(self.reserved.start..self.reserved.end.min(self.len.div_ceil(PAGE_BYTES)));
    }

    /// Everything as it is now is on the disk.
    pub(super) fn sync(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            if let Some(slot) = self.slots.get_mut(&index) {
                slot.durable.clone_from(&slot.current);
                slot.between = None;
                slot.dirty = false;
                if slot.durable.is_none() {
                    self.slots.remove(&index);
                }
            }
        }
        self.durable_len = self.len;
        self.between_len = None;
    }

    /// Writing back fails: the pages count as clean from now on, and the disk has never seen them. The length is
    /// still to be written, so that a later sync leaves zeros under it.
    pub(super) fn lose_dirty(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            if let Some(slot) = self.slots.get_mut(&index) {
                slot.dirty = false;
                slot.between = None;
            }
        }
    }

    /// Changes a byte of all that is known of it.
    pub(super) fn rot(&mut self, pos: u64, bits: u8) -> io::Result<()> {
        if pos >= self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (index, within, _) = page_part(pos, pos + 1);
        let slot = self.slots.entry(index).or_default();
        for page in [&mut slot.current, &mut slot.durable, &mut slot.between].into_iter().flatten() {
            if let Some(byte) = Arc::make_mut(page).get_mut(within) {
                *byte ^= bits;
            }
        }
        Ok(())
    }

    pub(super) fn drop_cache(&mut self, pos: u64, len: u64) {
        // Only whole pages leave the cache.
        let pages = pos.div_ceil(PAGE_BYTES)..pos.saturating_add(len) / PAGE_BYTES;
        // But the last page of a file is never whole, and goes too.
        let end = if pos.saturating_add(len) >= self.len { u64::MAX } else { pages.end };
        if pages.start >= end {
            return;
        }
        for slot in self.slots.range_mut(pages.start..end).map(|(_, slot)| slot) {
            if !slot.dirty {
                slot.cached = false;
                slot.current.clone_from(&slot.durable);
            }
        }
    }

    /// What the disk holds after a power loss; nothing of it is cached.
    pub(super) fn after_power_loss(&self, lots: &mut Lots) -> Self {
        let len = self.surviving_len(lots);
        let mut left = Self { len, durable_len: len, ..Self::default() };
        for (index, slot) in self.slots.range(..len.div_ceil(PAGE_BYTES)) {
            let state = if slot.dirty { lots.state(slot.between.is_some()) } else { State::Durable };
            let page = match state {
                State::Durable => &slot.durable,
                State::Between => &slot.between,
                State::Current => &slot.current,
            };
            let Some(mut page) = page.clone() else { continue };
            // What lay behind the end does not come back when the file grows again.
            let within = len.saturating_sub(index * PAGE_BYTES);
            if within < PAGE_BYTES
                && let Some(tail) = Arc::make_mut(&mut page).get_mut(within as usize..)
            {
                tail.fill(0);
            }
            left.slots.insert(
                *index,
                Slot { current: Some(Arc::clone(&page)), durable: Some(page), ..Slot::default() },
            );
            left.charged += 1;
        }
        left
    }

    /// A file that grew may have any length the kernel came by: those it had, and the ends of its pages.
    fn surviving_len(&self, lots: &mut Lots) -> u64 {
        if self.len == self.durable_len && self.between_len.is_none() {
            return self.len;
        }
        match lots.state(true) {
            State::Durable => self.durable_len,
            State::Current => self.len,
            State::Between => match self.between_len {
                Some(len) if lots.below(2) == 0 => len,
                _ => {
                    let pages = self.durable_len / PAGE_BYTES..self.len.div_ceil(PAGE_BYTES);
                    let end = pages.start + lots.below(pages.end.saturating_sub(pages.start)) + 1;
                    (end * PAGE_BYTES).clamp(self.durable_len.min(self.len), self.len.max(self.durable_len))
                }
            },
        }
    }

    /// The page, about to be changed.
    fn change(&mut self, index: u64, dice: &mut Dice) -> &mut [u8; PAGE_BYTES as usize] {
        let slot = self.slots.entry(index).or_default();
        // Now and then the content that is overwritten is kept as one that may have reached the disk.
        if slot.dirty && dice.below(8) < 2 {
            slot.between.clone_from(&slot.current);
        }
        slot.cached = true;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.insert(index);
        }
        Arc::make_mut(slot.current.get_or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])))
    }

    /// The page is cut off.
    fn empty(&mut self, index: u64, dice: &mut Dice) {
        let Some(slot) = self.slots.get_mut(&index) else { return };
        if slot.durable.is_none() {
            self.slots.remove(&index);
            self.dirty.remove(&index);
            return;
        }
        let cut = slot.current.take();
        if slot.dirty && dice.below(8) < 2 {
            slot.between = cut;
        }
        slot.dirty = true;
        self.dirty.insert(index);
    }

    fn change_len(&mut self, len: u64, dice: &mut Dice) {
        if self.len != self.durable_len && (self.between_len.is_none() || dice.below(8) < 2) {
            self.between_len = Some(self.len);
        }
        self.len = len;
    }

    fn reserve(&mut self, reserved: Range<u64>) {
        self.reserved = if reserved.is_empty() { 0..0 } else { reserved };
        let outside = self
            .slots
            .iter()
            .filter(|(i, slot)| slot.current.is_some() && !self.reserved.contains(i))
            .count();
        self.charged = self.reserved.end - self.reserved.start + outside as u64;
    }

    fn checked_end(&self, pos: u64, len: u64) -> io::Result<u64> {
        pos.checked_add(len)
            .filter(|end| *end <= FILE_BYTES_MAX)
            .ok_or_else(|| io::Error::from(rustix::io::Errno::FBIG))
    }
}

/// The page that holds `at`, where in it that is, and how many bytes of it lie before `end`.
fn page_part(at: u64, end: u64) -> (u64, usize, usize) {
    let within = at % PAGE_BYTES;
    (at / PAGE_BYTES, within as usize, (PAGE_BYTES - within).min(end.saturating_sub(at)) as usize)
}

fn put(buf: &mut BytesMut, page: Option<&Page>, within: usize, n: usize) {
    match page.and_then(|page| page.get(within..within + n)) {
        Some(part) => buf.put_slice(part),
        None => buf.put_bytes(0, n),
    }
}
