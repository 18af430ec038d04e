"""What every language's stubs must be able to do (../README.md): `encode`, and `roundtrip HOST:PORT`."""

import sys
import zlib

import fixtures
import grpc
import weir.v1 as weir
from reason import reason

TOPIC = "conformance-python"
TIMEOUT_S = 30


def encode() -> None:
    for name, message in fixtures.messages().items():
        print(name, message.SerializeToString().hex())


def roundtrip(address: str) -> None:
    # Default settings throughout: that is the point.
    channel = grpc.insecure_channel(address)
    producer = weir.ProducerServiceStub(channel)
    consumer = weir.ConsumerServiceStub(channel)
    topics = weir.TopicServiceStub(channel)

    topics.CreateTopic(
        weir.CreateTopicRequest(topic=weir.Topic(name=TOPIC, partitions=2), if_absent=True), timeout=TIMEOUT_S
    )

    sent = [
        weir.NewRecord(
            key=b"key-%d" % (i % 7),
            value=b"value-%d" % i,
            headers=[weir.Header(key="n", value=b"%d" % i)],
            timestamp_ms=1_700_000_000_000 + i,
        )
        for i in range(1000)
    ]
    answer = producer.Produce(weir.ProduceRequest(topic=TOPIC, records=sent), timeout=TIMEOUT_S)
    indexes = sorted(i for receipt in answer.receipts for i in receipt.record_indexes)
    assert indexes == list(range(1000)), answer
    assert all(receipt.committed for receipt in answer.receipts), answer
    by_partition = {receipt.partition: receipt for receipt in answer.receipts}
    for i, record in enumerate(sent):
        assert i in by_partition[zlib.crc32(record.key) % 2].record_indexes, record

    got = consume(consumer)
    assert len(got) == 1000, len(got)
    for partition in (0, 1):
        wanted = [r for r in sent if zlib.crc32(r.key) % 2 == partition]
        found = [r for r in got if r.partition == partition]
        assert [r.offset for r in found] == list(range(len(wanted)))
        for a, b in zip(wanted, found):
            assert (a.key, a.value, a.timestamp_ms, list(a.headers)) == (b.key, b.value, b.timestamp_ms, list(b.headers))

    end = 1 + max(r.offset for r in got if r.partition == 0)
    batch = fixtures.batch()
    batch.ClearField("producer")
    batch.ClearField("base_sequence")
    frames = [
        weir.ProduceStreamRequest(hello=weir.ProduceHello(client="conformance")),
        *(
            weir.ProduceStreamRequest(
                append=weir.BatchAppend(correlation_id=(1 << 53) + n, topic=TOPIC, partition=0, batch=batch)
            )
            for n in range(3)
        ),
    ]
    answers = list(producer.ProduceStream(iter(frames), timeout=TIMEOUT_S))
    assert answers[0].WhichOneof("frame") == "welcome", answers
    results = [a.result for a in answers if a.WhichOneof("frame") == "result"]
    assert [r.correlation_id for r in results] == [(1 << 53) + n for n in range(3)], answers
    assert [r.receipt.base_offset for r in results] == [end, end + 3, end + 6], answers

    fetched = consumer.Fetch(
        weir.FetchRequest(
            partitions=[weir.FetchPartition(topic=TOPIC, partition=0, offset=end)],
            format=weir.RECORD_FORMAT_BATCHES,
        ),
        timeout=TIMEOUT_S,
    ).partitions[0]
    assert [b.base_offset for b in fetched.batches] == [end, end + 3, end + 6], fetched
    for stored in fetched.batches:
        assert zlib.crc32(stored.records) == stored.crc
        assert weir.RecordSet.FromString(stored.records) == fixtures.record_set()
    assert fetched.progress.next_offset == end + 9, fetched

    tail = [r for r in consume(consumer) if r.partition == 0 and r.offset >= end]
    assert len(tail) == 9 and tail[2].tombstone and not tail[2].HasField("value"), tail
    assert tail[1].HasField("value") and tail[1].value == b"" and tail[1].HasField("key"), tail

    try:
        producer.Produce(weir.ProduceRequest(topic=TOPIC + "x", records=sent[:1]), timeout=TIMEOUT_S)
        raise AssertionError("a topic that does not exist was written to")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        why, facts = reason(error)
        assert (why, facts["topic"], facts["applied"]) == ("TOPIC_NOT_FOUND", TOPIC + "x", "NO"), (why, facts)

    print(f"python: 1009 records in and out of {TOPIC}, plain, streamed and as batches; errors have reasons")


def consume(consumer) -> list:
    request = weir.ConsumeRequest(topics=[TOPIC], start_at=weir.START_AT_EARLIEST, until_end=True)
    return [record for message in consumer.Consume(request, timeout=TIMEOUT_S) for record in message.records]


if __name__ == "__main__":
    if sys.argv[1:] == ["encode"]:
        encode()
    elif len(sys.argv) == 3 and sys.argv[1] == "roundtrip":
        roundtrip(sys.argv[2])
    else:
        sys.exit("usage: conformance.py encode | roundtrip HOST:PORT")
