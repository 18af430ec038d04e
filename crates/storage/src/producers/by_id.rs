//! Producers by their ids, in a map of which a copy costs little. Hot path.
//!
//! Whoever closes a segment keeps what was known of every producer then, with the claim in hand, and there may be a
//! hundred thousand of them. So a copy shares its entries with the map, bucket by bucket; a bucket that changes while a
//! copy is about is copied first. With a hundred thousand producers that are about a hundred entries, 19 KB.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::Entry;

/// There are at most 2 to this: a copy of the map counts as many references up.
const BUCKET_BITS: u32 = 10;

/// In order of their ids.
type Bucket = Vec<(i64, Entry)>;

#[derive(Clone, Debug)]
pub(crate) struct ById {
    /// Those that are not empty, in order of their numbers.
    buckets: Vec<(u64, Arc<Bucket>)>,
    len: usize,
    /// Random, so that nobody chooses ids which all fall into one bucket. Like a hash map's secret it decides nothing else:
    /// whoever needs an order sorts.
    secret: u64,
}

impl Default for ById {
    fn default() -> Self {
        Self { buckets: Vec::new(), len: 0, secret: RandomState::new().hash_one(0) }
    }
}

impl ById {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Entry> {
        let (_, bucket) = self.buckets.get(self.place_of(id).ok()?)?;
        bucket.get(find(bucket, id).ok()?).map(|(_, entry)| entry)
    }

    pub(crate) fn insert(&mut self, id: i64, entry: Entry) {
        let at = self.place_of(id).unwrap_or_else(|at| {
            self.buckets.insert(at, (self.number_of(id), Arc::default()));
            at
        });
        let Some((_, bucket)) = self.buckets.get_mut(at) else { return };
        let bucket = Arc::make_mut(bucket);
        match find(bucket, id) {
            Ok(at) => drop(bucket.get_mut(at).map(|(_, place)| *place = entry)),
            Err(at) => {
                bucket.insert(at, (id, entry));
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, id: i64) {
        let Ok(place) = self.place_of(id) else { return };
        let Some((_, bucket)) = self.buckets.get_mut(place) else { return };
        let Ok(at) = find(bucket, id) else { return };
        let bucket = Arc::make_mut(bucket);
        bucket.remove(at);
        self.len -= 1;
        if bucket.is_empty() {
            self.buckets.remove(place);
        }
    }

    /// Later times become this one.
    pub(crate) fn none_later_than(&mut self, time_ms: i64) {
        for (_, bucket) in &mut self.buckets {
            if bucket.iter().any(|(_, entry)| entry.last_time_ms > time_ms) {
                let entries = Arc::make_mut(bucket).iter_mut();
                entries.for_each(|(_, entry)| entry.last_time_ms = entry.last_time_ms.min(time_ms));
            }
        }
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Entry)> {
        self.buckets.iter().flat_map(|(_, bucket)| bucket.iter().map(|(id, entry)| (*id, entry)))
    }

    fn number_of(&self, id: i64) -> u64 {
        mix(id.cast_unsigned() ^ self.secret) >> (u64::BITS - BUCKET_BITS)
    }

    /// Where its bucket is, or would be.
    fn place_of(&self, id: i64) -> Result<usize, usize> {
        let number = self.number_of(id);
        self.buckets.binary_search_by_key(&number, |(number, _)| *number)
    }
}

/// The last step of SplitMix64 (Steele, Lea and Flood, 2014): a change of one bit changes each with one chance in two.
/// Ids follow one another, and the products of such numbers with one factor, even a random one, may have few upper bits.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn find(bucket: &Bucket, id: i64) -> Result<usize, usize> {
    bucket.binary_search_by_key(&id, |(id, _)| *id)
}

impl FromIterator<(i64, Entry)> for ById {
    fn from_iter<I: IntoIterator<Item = (i64, Entry)>>(entries: I) -> Self {
        let mut by_id = Self::default();
        entries.into_iter().for_each(|(id, entry)| by_id.insert(id, entry));
        by_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(last_offset: i64) -> Entry {
        Entry::new(0, last_offset, 0)
    }

    /// How many buckets two maps do not share.
    fn apart(one: &ById, other: &ById) -> usize {
        let pairs = one.buckets.iter().zip(&other.buckets);
        pairs.filter(|((_, one), (_, other))| !Arc::ptr_eq(one, other)).count()
    }

    #[test]
    fn a_copy_copies_no_entry_and_a_change_one_bucket() {
        let mut map: ById = (0..20_000).map(|id| (id, entry(id))).collect();
        let copy = map.clone();
        assert!(map.buckets.len() > 1_000 && apart(&map, &copy) == 0);
        map.insert(7, entry(99));
        map.insert(7, entry(100));
        assert_eq!(apart(&map, &copy), 1);
        assert_eq!((copy.get(7), map.get(7)), (Some(&entry(7)), Some(&entry(100))));
        drop(copy);
        let all = |map: &ById| map.buckets.iter().map(|(_, bucket)| Arc::as_ptr(bucket)).collect::<Vec<_>>();
        let before = all(&map);
        map.insert(7, entry(101));
        assert_eq!(all(&map), before, "nobody has a copy any more");
    }

    #[test]
    fn what_is_removed_is_gone_and_leaves_nothing() {
        let mut map: ById = (0..100).map(|id| (id * 1024, entry(id))).collect();
        assert_eq!((map.len(), map.iter().count()), (100, 100));
        for id in 0..100 {
            assert_eq!(map.get(id * 1024), Some(&entry(id)));
            map.remove(id * 1024);
            map.remove(id * 1024);
            assert_eq!(map.get(id * 1024), None);
        }
        assert!(map.len() == 0 && map.buckets.is_empty());
    }
}
