"""One record in, all records out, with nothing but generated stubs: quickstart.py [HOST:PORT [TOPIC]]."""

import sys

import grpc, weir.v1 as weir

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:9347"
topic = sys.argv[2] if len(sys.argv) > 2 else "greetings"

ch = grpc.insecure_channel(address)
weir.ProducerServiceStub(ch).Produce(weir.ProduceRequest(topic=topic, records=[weir.NewRecord(value=b"hello")]), timeout=10)
for m in weir.ConsumerServiceStub(ch).Consume(weir.ConsumeRequest(topics=[topic], until_end=True)):
    for r in m.records: print(r.offset, r.value)
