//! Which partition a key goes to. Every client and the broker must agree, in every language and for ever, so this
//! is said in the API's documentation too (`ProduceRequest`), with the same examples.

/// The partition of a key: CRC-32 (IEEE, as in zlib) of its bytes, as an unsigned number, modulo the number of
/// partitions. The empty key is a key. `partitions` below 1 counts as 1.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let partitions = partitions.max(1).cast_unsigned();
    (crc32fast::hash(key) % partitions).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_documentation_says() {
        let cases: [(&[u8], u32, i32); 4] = [
            (b"a", 0xe8b7_be43, 3),
            (b"flights", 0xfc74_b5ea, 2),
            (b"", 0, 0),
            (&[0x00, 0xff], 0x6cdb_fd72, 2),
        ];
        for (key, crc, partition) in cases {
            assert_eq!(crate::crc(key), crc);
            assert_eq!(partition_for_key(key, 8), partition);
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        // The CRC's top bit is set: a signed remainder would be negative.
        assert_eq!(partition_for_key(b"a", i32::MAX), (0xe8b7_be43_u32 % 0x7fff_ffff) as i32);
        assert_eq!(partition_for_key(b"a", 1), 0);
        assert_eq!(partition_for_key(b"a", 0), 0);
        assert_eq!(partition_for_key(b"a", -7), 0);
    }
}
