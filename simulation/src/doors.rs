//! The two calls of the C library that decide something in a run and do not come through the `Os`: `getrandom` and
//! `clock_gettime`. Here they answer from the seed.
//!
//! Behind the first are the keys of the standard library's hash maps, which tokio also draws the order of `select!` from;
//! behind the second `std::time::Instant` and `SystemTime` in dependencies. The linker takes these two for those of the
//! C library, in this binary and nowhere else. Nothing here is safe to use in a process that does anything but simulate:
//! what is drawn can be foreseen, and time stands still between two steps of the simulation.

#![expect(unsafe_code, reason = "a symbol of the C library is replaced, which no safe code can do")]

use std::sync::atomic::{AtomicU64, Ordering};

use weir_io::Dice;

/// What the wall clock shows when a simulation begins, in nanoseconds since 1970: 2023-11-14 22:13:20 UTC.
pub(crate) const START_WALL_NS: u64 = 1_700_000_000_000_000_000;

/// The monotonic clock begins here: 0 is before anything that may be subtracted from it.
const START_NS: u64 = 1_000_000_000_000;

static NOW_NS: AtomicU64 = AtomicU64::new(0);
static CHANCE: AtomicU64 = AtomicU64::new(0);

/// `CLOCK_REALTIME`, and its coarse sister.
const WALL_CLOCKS: [i32; 2] = [0, 5];

/// From here on this seed decides. To be called before anything else.
pub(crate) fn set_seed(seed: u64) {
    CHANCE.store(seed, Ordering::SeqCst);
}

/// What the clocks show, in nanoseconds since the simulation began.
pub(crate) fn set_now(now_ns: u64) {
    NOW_NS.store(now_ns, Ordering::SeqCst);
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    for at in 0..len {
        let roll = Dice::new(CHANCE.fetch_add(1, Ordering::SeqCst)).roll();
        // SAFETY: the caller gives a buffer of `len` bytes, as the call's contract has it.
        unsafe { buffer.add(at).write(roll as u8) };
    }
    len.cast_signed()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    let start = if WALL_CLOCKS.contains(&clock) { START_WALL_NS } else { START_NS };
    let now = (start + NOW_NS.load(Ordering::SeqCst)).cast_signed();
    let (seconds, nanoseconds) = (now / 1_000_000_000, now % 1_000_000_000);
    // SAFETY: the caller gives room for a timespec, as the call's contract has it; on 64 bits both fields are 64 bits.
    unsafe { time.write(Timespec { seconds, nanoseconds }) };
    0
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    /// Keys are drawn once a thread.
    fn first_keys(seed: u64) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "threads of the test itself")]
        let drawing = std::thread::spawn(move || {
            set_seed(seed);
            RandomState::new().hash_one(7)
        });
        drawing.join().unwrap()
    }

    #[test]
    fn hash_keys_and_clocks_answer_from_the_seed() {
        assert_eq!(first_keys(1), first_keys(1));
        assert_ne!(first_keys(1), first_keys(2));
        #[expect(clippy::disallowed_methods, reason = "it is these that are replaced")]
        let now = || (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        set_now(0);
        let before = now();
        set_now(1_500_000_000);
        let after = now();
        assert_eq!(before.1, Duration::from_nanos(START_WALL_NS));
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (Duration::from_millis(1_500), Duration::from_millis(1_500))
        );
    }
}
