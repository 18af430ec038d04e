//! A sorted map that is cheap to clone and cheap to change after that.
//!
//! A metadata image is read by many while the next one is made: a million topics must not be copied for that.
//! The entries lie in sorted chunks behind `Arc`s. A clone copies the list of chunks; a change copies one chunk
//! if somebody else still holds it, else nothing. With n entries a clone costs about n / 100 pointer copies.
//!
//! It is not a tree: two levels carry a million entries, which is what Weir is built for.

use std::fmt;
use std::sync::Arc;

/// A chunk that grew beyond this is split into two.
const CHUNK_MAX: usize = 128;
/// A chunk that shrank below this is joined to its neighbour, if both fit into one.
const CHUNK_MIN: usize = 32;

/// A sorted map whose clones share what they have in common.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    /// Sorted; never an empty chunk.
    chunks: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// A map without entries.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let index = self.chunk_of(key)?;
        let at = self.chunks.get(index)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(index)?);
        chunk.get_mut(at).map(|(_, value)| value)
    }

    /// Whether the key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Sets a key's value; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.chunk_of(&key).unwrap_or(0);
        let is_last = index + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => chunk.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
                if chunk.len() > CHUNK_MAX {
                    // Keys mostly arrive in order: a full last chunk keeps all but its newest entry, so that
                    // such a map ends up with full chunks.
                    let keep = if is_last && at + 1 == chunk.len() { CHUNK_MAX } else { chunk.len() / 2 };
                    let upper = chunk.split_off(keep);
                    self.chunks.insert(index + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes a key out; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let index = self.chunk_of(key)?;
        let at = self.chunks.get(index)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(index)?);
        let (_, value) = chunk.remove(at);
        let left = chunk.len();
        self.len -= 1;
        if left == 0 {
            self.chunks.remove(index);
        } else if left < CHUNK_MIN {
            self.join(index);
        }
        Some(value)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries whose keys are greater than `key`, in order: the next page of a listing.
    pub fn after<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        K: std::borrow::Borrow<Q>,
    {
        let first = self.chunk_of(key).unwrap_or(0);
        let skip = self
            .chunks
            .get(first)
            .map_or(0, |chunk| chunk.partition_point(|(k, _)| k.borrow().cmp(key).is_le()));
        self.chunks.iter().skip(first).flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v))).skip(skip)
    }

    /// The keys whose entries differ between this map and another, in order; both may have an entry, or one. What
    /// the two share is not looked at, so that after a small change this costs little more than the list of chunks.
    pub fn differences(&self, other: &Self) -> Vec<K>
    where
        V: PartialEq,
    {
        let (mut ours, mut theirs) = (Side::new(self), Side::new(other));
        let mut keys = Vec::new();
        loop {
            // At the start of chunks that both maps hold, all of them is the same.
            while ours.skip_shared(&mut theirs) {}
            match (ours.peek(), theirs.peek()) {
                (None, None) => return keys,
                (Some((a, x)), Some((b, y))) if a == b => {
                    if x != y {
                        keys.push(a.clone());
                    }
                    ours.advance();
                    theirs.advance();
                }
                (Some((a, _)), Some((b, _))) if a < b => {
                    keys.push(a.clone());
                    ours.advance();
                }
                (Some((a, _)), None) => {
                    keys.push(a.clone());
                    ours.advance();
                }
                (_, Some((b, _))) => {
                    keys.push(b.clone());
                    theirs.advance();
                }
            }
        }
    }

    /// The chunk that holds `key`, or would: the last one that begins at or below it.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: std::borrow::Borrow<Q>,
    {
        let above = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow().cmp(key).is_le()));
        if self.chunks.is_empty() { None } else { Some(above.saturating_sub(1)) }
    }

    /// Joins a small chunk to the one before or after it, whichever leaves room.
    fn join(&mut self, index: usize) {
        let fits = |low: usize| match (self.chunks.get(low), self.chunks.get(low + 1)) {
            (Some(lower), Some(upper)) => lower.len() + upper.len() <= CHUNK_MAX,
            _ => false,
        };
        let Some(low) = index.checked_sub(1).into_iter().chain([index]).find(|low| fits(*low)) else {
            return;
        };
        let upper = self.chunks.remove(low + 1);
        if let Some(lower) = self.chunks.get_mut(low) {
            Arc::make_mut(lower).extend(upper.iter().cloned());
        }
    }
}

/// A place in a map, on the way through it.
struct Side<'a, K, V> {
    chunks: &'a [Arc<Vec<(K, V)>>],
    at: usize,
}

impl<'a, K: Ord + Clone, V: Clone> Side<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self { chunks: &map.chunks, at: 0 }
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.get(self.at)
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| self.at >= chunk.len()) {
            self.next_chunk();
        }
    }

    fn next_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.at = 0;
    }

    fn skip_shared(&mut self, other: &mut Self) -> bool {
        let shared = match (self.chunks.first(), other.chunks.first()) {
            (Some(ours), Some(theirs)) => self.at == 0 && other.at == 0 && Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        if shared {
            self.next_chunk();
            other.next_chunk();
        }
        shared
    }
}

impl<K: Ord + Clone, V: Clone> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

/// Equal entries, however they are spread over chunks.
impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for SharedMap<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_btree_map_does(operations in prop::collection::vec((any::<bool>(), 0u16..600, any::<u8>()), 0..2_000)) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            let mut clones = Vec::new();
            for (at, (insert, key, value)) in operations.into_iter().enumerate() {
                if insert || value % 3 == 0 {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                if let (Some(a), Some(b)) = (map.get_mut(&(key / 2)), model.get_mut(&(key / 2))) {
                    *a = a.wrapping_add(1);
                    *b = b.wrapping_add(1);
                }
                if at % 500 == 0 {
                    clones.push((map.clone(), model.clone()));
                }
            }
            for (older, older_model) in &clones {
                let expected: BTreeSet<u16> = model
                    .keys()
                    .chain(older_model.keys())
                    .filter(|key| model.get(*key) != older_model.get(*key))
                    .copied()
                    .collect();
                prop_assert_eq!(map.differences(older), expected.into_iter().collect::<Vec<_>>());
            }
            clones.push((map, model));
            for (map, model) in clones {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter()));
                for key in [0u16, 17, 300, 599, 700] {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    let after = model.range((Bound::Excluded(key), Bound::Unbounded));
                    prop_assert!(map.after(&key).eq(after));
                }
            }
        }
    }

    #[test]
    fn chunks_fill_up_when_keys_arrive_in_order() {
        let map: SharedMap<u32, ()> = (0..128_000).map(|key| (key, ())).collect();
        assert_eq!(map.chunks.len(), 1_000);
    }

    #[test]
    fn chunks_join_when_entries_leave() {
        let mut map: SharedMap<u32, ()> = (0..128_000).map(|key| (key, ())).collect();
        for key in 0..128_000 {
            if key % 100 != 0 {
                map.remove(&key);
            }
        }
        assert_eq!(map.len(), 1_280);
        assert!(map.chunks.len() < 60, "{} chunks", map.chunks.len());
    }
}
