//! Records as the tests make them up.

use proptest::collection::vec;
use proptest::prelude::*;
use weir_record::{BatchBuilder, Packed};

/// A record before it is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Given {
    pub(crate) fn header_refs(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.headers.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

/// Any record: text and bytes, empty and absent, timestamps near and far.
pub(crate) fn any_record() -> impl Strategy<Value = Given> {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..200), "[a-zß€𝄞]{0,20}".prop_map(String::into_bytes)];
    let timestamp = prop_oneof![1_700_000_000_000_i64..1_700_000_100_000, any::<i64>()];
    let headers = prop_oneof![
        3 => Just(Vec::new()),
        1 => vec((".{0,20}", vec(any::<u8>(), 0..200)), 1..4),
    ];
    (timestamp, proptest::option::of(bytes()), proptest::option::of(bytes()), headers)
        .prop_map(|(timestamp_ms, key, value, headers)| Given { timestamp_ms, key, value, headers })
}

/// At least one record.
pub(crate) fn any_records() -> impl Strategy<Value = Vec<Given>> {
    vec(any_record(), 1..40)
}

/// Packs them.
pub(crate) fn pack(records: &[Given]) -> Packed {
    let mut builder = BatchBuilder::new();
    for record in records {
        builder
            .push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), record.header_refs())
            .unwrap();
    }
    builder.take().unwrap()
}
