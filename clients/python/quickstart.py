"""One record in, all records out, with nothing but generated stubs: quickstart.py [HOST:PORT [TOPIC]]."""

import sys

import grpc
import weir.v1 as weir

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:9347"
topic = sys.argv[2] if len(sys.argv) > 2 else "greetings"

channel = grpc.insecure_channel(address)
record = weir.NewRecord(value=b"hello")
weir.ProducerServiceStub(channel).Produce(weir.ProduceRequest(topic=topic, records=[record]), timeout=10)
for message in weir.ConsumerServiceStub(channel).Consume(weir.ConsumeRequest(topics=[topic], until_end=True)):
    for record in message.records:
        print(record.offset, record.value)
