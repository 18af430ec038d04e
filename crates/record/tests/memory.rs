//! No header of a batch makes a decoder allocate more than was declared. Alone in its process: it watches the
//! process's memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use weir_record::{BATCH_BYTES_MAX, BatchBuilder, Codec, Compressor, Decompressor, NO_HEADERS};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The decoders' own state, whatever the batch (zstd's is allocated by C, and not seen here).
const STATE_BYTES: usize = 128 << 10;

fn peak_while<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    (MEMORY.peak_usage().saturating_sub(before), result)
}

#[test]
fn decoders_allocate_what_was_declared() {
    let zeros = Bytes::from(vec![0; 32 << 20]);
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        let (_, bomb) = Compressor::new().compress(codec, None, &zeros).unwrap();
        for declared in [0, 1_000, 1 << 20] {
            let (peak, outcome) =
                peak_while(|| Decompressor::new().decompress(codec, &bomb, declared, BATCH_BYTES_MAX));
            assert!(outcome.is_err());
            assert!(peak <= declared + STATE_BYTES, "{codec}: {peak} B for {declared} B declared");
        }
        // Declared more than the codec could make of it: nothing at all.
        let (peak, outcome) = peak_while(|| {
            Decompressor::new().decompress(codec, &bomb.slice(..100), BATCH_BYTES_MAX, BATCH_BYTES_MAX)
        });
        assert!(outcome.is_err());
        assert!(peak < 1_000, "{codec}: {peak} B");
        // Whatever one byte of it says instead.
        for at in 0..bomb.len().min(40) {
            for to in [0x00, 0x7f, 0x80, 0xff, bomb[at] ^ 0x40] {
                let mut changed = bomb.to_vec();
                changed[at] = to;
                let changed = Bytes::from(changed);
                let declared = 1 << 16;
                let (peak, _) =
                    peak_while(|| Decompressor::new().decompress(codec, &changed, declared, BATCH_BYTES_MAX));
                assert!(peak <= declared + STATE_BYTES, "{codec}, byte {at} = {to:02x}: {peak} B");
            }
        }
    }
    nothing_is_allocated_per_record();
}

fn nothing_is_allocated_per_record() {
    let mut builder = BatchBuilder::with_capacity(1 << 20);
    builder.push(1, None, None, NO_HEADERS).unwrap();
    let (peak, ()) = peak_while(|| {
        for _ in 0..8_000 {
            builder.push(1, Some(b"key"), Some(&[7; 100]), [("name", &b"value"[..])]).unwrap();
        }
    });
    assert_eq!(peak, 0, "packing into a buffer with room");
    let last = builder.record_count() - 1;
    let set = builder.take().unwrap().into_set();
    let (peak, bytes) = peak_while(|| {
        weir_record::Records::new(&set, last).map(|record| record.unwrap().payload_bytes()).sum::<usize>()
    });
    assert_eq!((peak, bytes), (0, 8_000 * 112), "reading views");
}
