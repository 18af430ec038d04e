//! Bytes that nobody meant well with: decoders end, with what was declared or an error.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

mod support;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use support::{any_records, pack};
use weir_record::{
    BATCH_BYTES_MAX, Codec, Compressor, Decompressor, Error, Limits, Records, Size, verify, verify_deep,
};

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&Codec::ALL[..])
}

/// What is done to a payload on its way.
#[derive(Clone, Debug)]
enum Harm {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Drop(prop::sample::Index),
    Twice(prop::sample::Index),
}

fn any_harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Harm::Set(at, to)),
        1 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        1 => vec(any::<u8>(), 1..20).prop_map(Harm::Append),
        1 => any::<prop::sample::Index>().prop_map(Harm::Drop),
        1 => any::<prop::sample::Index>().prop_map(Harm::Twice),
    ]
}

fn harm(payload: &mut Vec<u8>, harms: &[Harm]) {
    for harm in harms {
        let len = payload.len();
        match harm {
            _ if len == 0 => {}
            Harm::Set(at, to) => payload[at.index(len)] = *to,
            Harm::Cut(at) => payload.truncate(at.index(len)),
            Harm::Append(bytes) => payload.extend(bytes),
            Harm::Drop(at) => drop(payload.remove(at.index(len))),
            Harm::Twice(at) => payload.extend_from_within(at.index(len)..),
        }
    }
}

proptest! {
    #[test]
    fn every_codec_gives_back_what_it_took(
        given in any_records(),
        codec in any_codec(),
        level in proptest::option::of(0..10_i32),
    ) {
        let level = level.filter(|_| codec != Codec::Lz4 && codec != Codec::None);
        let packed = pack(&given);
        let set = packed.clone().into_set();
        // Contexts are used again: the second batch must not see the first.
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for _ in 0..2 {
            let batch = packed.clone().seal(codec, level, &mut compressor).unwrap();
            prop_assert!(batch.codec == codec || batch.payload == set);
            let back = verify_deep(&batch.payload, &batch.declared(), &Limits::default(), &mut decompressor);
            prop_assert_eq!(back, Ok(set.clone()));
        }
    }

    #[test]
    fn harmed_payloads_end_in_the_declared_size_or_an_error(
        given in any_records(),
        codec in any_codec(),
        harms in vec(any_harm(), 1..4),
    ) {
        let set = pack(&given).into_set();
        let batch = pack(&given).seal(codec, None, &mut Compressor::new()).unwrap();
        let mut payload = batch.payload.to_vec();
        harm(&mut payload, &harms);
        let payload = Bytes::from(payload);
        let untouched = payload == batch.payload;
        // The CRC finds it, as long as it is not made to fit.
        let mut declared = batch.declared();
        prop_assert_eq!(verify(&payload, &declared, &Limits::default()).is_ok(), untouched);
        declared.crc = weir_record::crc(&payload);
        let opened = Decompressor::new().decompress(batch.codec, &payload, set.len(), BATCH_BYTES_MAX);
        if let Ok(opened) = opened {
            prop_assert_eq!(opened.len(), set.len());
            Records::new(&opened, declared.last_offset_delta).for_each(drop);
        }
        let _ = verify_deep(&payload, &declared, &Limits::default(), &mut Decompressor::new());
    }

    #[test]
    fn any_bytes_end_in_the_declared_size_or_an_error(
        codec in any_codec(),
        head in prop_oneof![
            Just(vec![]),
            Just(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
            Just(vec![0x28, 0xb5, 0x2f, 0xfd]),
            Just(vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]),
            Just(vec![0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0]),
        ],
        tail in vec(any::<u8>(), 0..300),
        declared in 0..5_000_usize,
    ) {
        let payload = Bytes::from([head, tail].concat());
        if let Ok(set) = Decompressor::new().decompress(codec, &payload, declared, 4_096) {
            prop_assert_eq!(set.len(), declared);
            prop_assert!(declared <= 4_096);
        }
    }
}

/// Zeros: what a decompression bomb is made of.
fn bomb(codec: Codec) -> (Bytes, usize) {
    let zeros = Bytes::from(vec![0; 32 << 20]);
    let (used, payload) = Compressor::new().compress(codec, None, &zeros).unwrap();
    assert_eq!(used, codec);
    assert!(payload.len() < zeros.len() / 200, "{codec}: {}", payload.len());
    (payload, zeros.len())
}

#[test]
fn a_bomb_is_refused_at_its_declared_size() {
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        let (payload, size) = bomb(codec);
        let open = |declared, limit| Decompressor::new().decompress(codec, &payload, declared, limit);
        // Honest, and over the limit.
        assert_eq!(open(size, 1 << 20), Err(Error::DecompressionLimit { declared: size, limit: 1 << 20 }));
        // Honest and allowed: it is just a batch.
        assert_eq!(open(size, size).map(|set| set.len()), Ok(size));
        // A lie.
        let expected = Err(Error::SizeMismatch { declared: 1 << 20, actual: Size::More });
        match open(1 << 20, 1 << 20) {
            // Our lz4 frames carry their size.
            Err(Error::SizeMismatch { actual: Size::Exactly(actual), .. }) if codec == Codec::Lz4 => {
                assert_eq!(actual, size);
            }
            other => assert_eq!(other, expected, "{codec}"),
        }
    }
}

#[test]
fn no_codec_can_make_so_much_of_so_little() {
    for codec in Codec::ALL {
        let payload = Bytes::from(vec![0; 100]);
        let error = Decompressor::new().decompress(codec, &payload, 50 << 20, BATCH_BYTES_MAX).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. } | Error::SizeMismatch { .. }), "{codec}: {error}");
    }
}
