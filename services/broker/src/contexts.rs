//! Contexts of compression that outlive their batch: to make one costs more than a small batch takes to compress.
//! Hot path.
//!
//! They are no state: whoever takes one may leave it to anybody. A few are kept, those of batches of an ordinary size
//! alone, so that what is kept is bounded, a few megabytes each.

use parking_lot::Mutex;
use weir_record::{Compressor, Decompressor};

/// How many are kept of each kind: about as many as work at once.
const KEPT_MAX: usize = 8;
/// A larger batch leaves no context behind: its buffers are as large.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// For batches that are compressed here.
pub(crate) static COMPRESSORS: Pool<Compressor> = Pool::new();
/// For batches that are opened here.
pub(crate) static DECOMPRESSORS: Pool<Decompressor> = Pool::new();

/// Contexts that nobody uses now.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Works on a batch of so many bytes, once decompressed.
    pub(crate) fn with<R>(&self, batch_bytes: usize, work: impl FnOnce(&mut T) -> R) -> R {
        let kept = self.0.lock().pop();
        let mut context = kept.unwrap_or_default();
        let result = work(&mut context);
        if batch_bytes <= BATCH_BYTES_MAX {
            let mut kept = self.0.lock();
            if kept.len() < KEPT_MAX {
                kept.push(context);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
    }

    struct Counted;

    impl Default for Counted {
        fn default() -> Self {
            MADE.set(MADE.get() + 1);
            Self
        }
    }

    #[test]
    fn a_context_serves_batch_after_batch_and_few_are_kept() {
        fn nested(pool: &Pool<Counted>, depth: usize) {
            pool.with(1, |_| {
                if depth > 0 {
                    nested(pool, depth - 1)
                }
            });
        }
        let pool = Pool::<Counted>::new();
        (0..100).for_each(|_| pool.with(4 << 10, |_| ()));
        assert_eq!(MADE.get(), 1);
        nested(&pool, 3 * KEPT_MAX);
        assert_eq!(pool.0.lock().len(), KEPT_MAX);
    }

    #[test]
    fn what_served_a_large_batch_is_not_kept() {
        let pool = Pool::<Counted>::new();
        pool.with(BATCH_BYTES_MAX + 1, |_| ());
        assert!(pool.0.lock().is_empty());
    }
}
