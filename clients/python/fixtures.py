"""The messages of ../README.md, "Fixtures", as this language encodes them."""

import zlib

import weir.v1 as weir


def record_set() -> weir.RecordSet:
    return weir.RecordSet(
        records=[
            weir.BatchRecord(
                key=b"UA", value=b"hello", headers=[weir.Header(key="trace", value=b"\x00\xff")]
            ),
            weir.BatchRecord(offset_delta=1, timestamp_delta_ms=-5, key=b"", value=b""),
            weir.BatchRecord(offset_delta=2, timestamp_delta_ms=7, key="é".encode()),
        ]
    )


def batch(**more) -> weir.RecordBatch:
    records = record_set().SerializeToString()
    return weir.RecordBatch(
        last_offset_delta=2,
        record_count=3,
        base_timestamp_ms=1_700_000_000_000,
        max_timestamp_ms=1_700_000_000_007,
        codec=weir.CODEC_NONE,
        uncompressed_bytes=len(records),
        crc=zlib.crc32(records),
        producer=weir.ProducerIdentity(id=77, epoch=3),
        base_sequence=2_147_483_647,
        records=records,
        **more,
    )


def messages() -> dict:
    stored = batch(base_offset=1 << 40, leader_epoch=5)
    return {
        "record_set": record_set(),
        "produce_records": weir.ProduceRequest(
            topic="flights",
            records=[
                weir.NewRecord(
                    key=b"UA",
                    value=b"hello",
                    headers=[weir.Header(key="trace", value=b"\x00\xff")],
                    timestamp_ms=0,
                ),
                weir.NewRecord(tombstone=True, key_text="é"),
            ],
            partition=0,
            acks=weir.ACKS_LEADER,
            floor=weir.DurabilityFloor(durability=weir.DURABILITY_DISK, replicas=2),
            expected_next_offset=0,
            required_features=["fixtures"],
        ),
        "produce_batch": weir.ProduceRequest(topic="flights", partition=0, batch=batch()),
        "stream_hello": weir.ProduceStreamRequest(
            hello=weir.ProduceHello(client="fixture", version_max=1, acks=weir.ACKS_ALL)
        ),
        "stream_append": weir.ProduceStreamRequest(
            append=weir.BatchAppend(
                correlation_id=(1 << 53) + 1, topic="flights", partition=7, resume=True, batch=batch()
            )
        ),
        "stream_delivery": weir.FetchStreamResponse(
            delivery=weir.BatchDelivery(
                subscription_id=1,
                generation=2,
                next_offset=(1 << 40) + 3,
                high_watermark=(1 << 40) + 9,
                last_stable_offset=(1 << 40) + 8,
                log_start_offset=4,
                batch=stored,
            )
        ),
        "fetch_response": weir.FetchResponse(
            partitions=[
                weir.FetchedPartition(
                    progress=weir.PartitionProgress(
                        topic="flights", partition=7, log_start_offset=4, next_offset=(1 << 40) + 3
                    ),
                    batches=[stored, stored],
                )
            ],
            waited_ms=12,
        ),
    }
