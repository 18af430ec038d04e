"""Writes the lines of flights.csv, keyed by carrier, and prints what it reads back, as CARRIER PARTITION LINE.

    flights.py HOST:PORT TOPIC FILE

Nothing but generated stubs, a default channel and one address.
"""

import csv
import sys

import grpc
import weir.v1 as weir

# How many records go into one call: far below what a server takes by default.
RECORDS_PER_CALL = 5_000


def main(address: str, topic: str, path: str) -> None:
    channel = grpc.insecure_channel(address)
    producer = weir.ProducerServiceStub(channel)
    records = []

    def send() -> None:
        producer.Produce(weir.ProduceRequest(topic=topic, records=records, codec=weir.CODEC_ZSTD), timeout=60)
        records.clear()

    with open(path, "rb") as file:
        columns = next(csv.reader([next(file).decode()]))
        carrier = columns.index("carrier")
        for line in file:
            line = line.rstrip(b"\n")
            records.append(weir.NewRecord(key=line.split(b",")[carrier], value=line))
            if len(records) == RECORDS_PER_CALL:
                send()
    if records:
        send()

    messages = weir.ConsumerServiceStub(channel).Consume(weir.ConsumeRequest(topics=[topic], until_end=True))
    for message in messages:
        for record in message.records:
            sys.stdout.buffer.write(b"%s %d %s\n" % (record.key, record.partition, record.value))


if __name__ == "__main__":
    main(*sys.argv[1:])
