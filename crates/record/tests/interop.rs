//! Batches compressed by another language open here. tests/data/make.py says how they were made.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use bytes::Bytes;
use weir_record::{BATCH_BYTES_MAX, BatchBuilder, Codec, Compressor, Decompressor, Error};

const CARRIERS: [&str; 7] = ["AA", "B6", "DL", "EV", "MQ", "UA", "WN"];

const REMARK: &str = "operated by a carrier that keeps its planes for a long time and paints them rarely; no meals on this route";

/// The record set of make.py, packed by us.
fn record_set() -> Bytes {
    let mut builder = BatchBuilder::new();
    for i in 0..1_000_i64 {
        let carrier = CARRIERS[(i * i % 7) as usize];
        let timestamp_ms = if i == 0 { 0 } else { (i * 37) % 1_000 - 500 };
        let (day, flight, gate) = (i % 28 + 1, 1_000 + i % 90, i % 13);
        let value = format!("2013,1,{day},{carrier},{flight},EWR,IAH,{gate},{REMARK}");
        let trace = format!("00-{i:032x}-{i:016x}-01");
        let headers = (i % 100 == 0).then_some(("traceparent", trace.as_bytes()));
        let key = (i % 5 != 0).then_some(carrier.as_bytes());
        let value = (i % 11 != 0).then_some(value.as_bytes());
        builder.push(timestamp_ms, key, value, headers).unwrap();
    }
    builder.take().unwrap().into_set()
}

fn open(codec: Codec, file: &'static [u8], declared: usize) -> Result<Bytes, Error> {
    Decompressor::new().decompress(codec, &Bytes::from_static(file), declared, BATCH_BYTES_MAX)
}

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("data/", $name)).as_slice())
    };
}

#[test]
fn what_python_compressed_opens() {
    let files = [
        (Codec::Gzip, file!("default.gz")),
        (Codec::Gzip, file!("named.gz")),
        (Codec::Gzip, file!("two-members.gz")),
        (Codec::Zstd, file!("default.zst")),
        (Codec::Zstd, file!("checksum-19.zst")),
        (Codec::Zstd, file!("no-size.zst")),
        (Codec::Lz4, file!("default.lz4")),
        (Codec::Lz4, file!("linked-block-checksums.lz4")),
        (Codec::Lz4, file!("independent-no-size.lz4")),
        (Codec::Lz4, file!("high-4MiB-checksum.lz4")),
    ];
    let expected = record_set();
    assert!(expected.len() > 128 << 10, "linked blocks need several blocks: {}", expected.len());
    for (codec, (name, file)) in files {
        let set = open(codec, file, expected.len()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(set == expected, "{name} differs");
        for wrong in [expected.len() - 1, expected.len() + 1] {
            let error = open(codec, file, wrong).unwrap_err();
            assert!(matches!(error, Error::SizeMismatch { .. }), "{name} as {wrong} B: {error}");
        }
    }
}

#[test]
fn two_frames_are_not_a_batch() {
    let expected = record_set().len();
    for (codec, (name, file)) in
        [(Codec::Zstd, file!("two-frames.zst")), (Codec::Lz4, file!("two-frames.lz4"))]
    {
        // As the whole, and as what a decoder that stops after the first frame would make of it.
        for declared in [expected, expected / 2] {
            let error = open(codec, file, declared).unwrap_err();
            assert!(
                matches!(error, Error::Undecodable { .. } | Error::SizeMismatch { .. }),
                "{name} as {declared} B: {error}"
            );
        }
    }
}

#[test]
fn one_changed_bit_is_found_where_the_format_has_a_checksum() {
    let expected = record_set();
    let files = [
        (Codec::Gzip, file!("default.gz")),
        (Codec::Zstd, file!("checksum-19.zst")),
        (Codec::Lz4, file!("linked-block-checksums.lz4")),
        (Codec::Lz4, file!("high-4MiB-checksum.lz4")),
    ];
    for (codec, (name, file)) in files {
        for at in (file.len() / 4..file.len()).step_by(97) {
            let mut changed = file.to_vec();
            changed[at] ^= 0x10;
            let outcome =
                Decompressor::new().decompress(codec, &changed.into(), expected.len(), BATCH_BYTES_MAX);
            assert!(outcome.is_err(), "{name}, byte {at}");
        }
    }
}

#[test]
fn ours_is_no_larger_than_theirs() {
    // Levels differ between languages; this catches an encoder that does not find its matches.
    let set = record_set();
    let theirs = [
        (Codec::Gzip, file!("default.gz").1),
        (Codec::Zstd, file!("no-size.zst").1),
        (Codec::Lz4, file!("default.lz4").1),
    ];
    for (codec, theirs) in theirs {
        let (used, ours) = Compressor::new().compress(codec, None, &set).unwrap();
        assert_eq!(used, codec);
        assert!(ours.len() * 4 < theirs.len() * 5, "{codec}: {} against {}", ours.len(), theirs.len());
    }
}
