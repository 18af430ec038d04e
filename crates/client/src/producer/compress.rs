//! Compression of whole batches, on a few threads beside the I/O runtime, which has better things to do.
//!
//! Batches come back in whatever order they are finished; their lane puts them in order again by their numbers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_record::{Batch, Codec, Compressor};
use weir_runtime::Os;

use super::buffer::Closed;

/// One core stays for everything else; more than four threads have more to compress than a connection carries.
pub(crate) fn compression_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.saturating_sub(1).clamp(1, 4)
}

type Deliver = Box<dyn Fn(Closed, Result<Batch, weir_record::Error>) + Send + Sync>;

/// Compresses and hands on.
pub(super) struct Pool {
    os: Arc<dyn Os>,
    codec: Codec,
    level: Option<i32>,
    deliver: Deliver,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Closed>,
    workers: usize,
    /// Contexts of workers that have gone home: making one is expensive.
    idle: Vec<Compressor>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(os: Arc<dyn Os>, codec: Codec, level: Option<i32>, deliver: Deliver) -> Arc<Self> {
        Arc::new(Self { os, codec, level, deliver, queue: Mutex::default() })
    }

    /// Compresses a batch, on this thread if that means no more than summing it up.
    pub(super) fn submit(self: &Arc<Self>, closed: Closed) {
        if self.codec == Codec::None {
            let batch = closed.packed.clone().seal(self.codec, self.level, &mut Compressor::new());
            return (self.deliver)(closed, batch);
        }
        let mut queue = self.queue.lock();
        queue.jobs.push_back(closed);
        if queue.workers < compression_threads() {
            queue.workers += 1;
            let pool = Arc::clone(self);
            drop(queue);
            self.os.block(Box::new(move || pool.work()));
        }
    }

    /// Works until there is nothing left.
    fn work(&self) {
        let mut compressor = self.queue.lock().idle.pop().unwrap_or_default();
        loop {
            let job = {
                let mut queue = self.queue.lock();
                let Some(job) = queue.jobs.pop_front() else {
                    queue.workers -= 1;
                    queue.idle.push(compressor);
                    return;
                };
                job
            };
            let batch = job.packed.clone().seal(self.codec, self.level, &mut compressor);
            (self.deliver)(job, batch);
        }
    }
}
