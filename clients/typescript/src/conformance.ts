// What every language's stubs must be able to do (../../README.md): `encode`, and `roundtrip HOST:PORT`.
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { clone, equals, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as fixtures from "./fixtures.js";
import { reason } from "./reason.js";
import * as weir from "./weir.js";

const topic = "conformance-typescript";
const text = (s: string) => new TextEncoder().encode(s);
const partitionOf = (key: Uint8Array) => crc32(key) % 2;

async function roundtrip(address: string) {
  // Default settings throughout: that is the point.
  const transport = createGrpcTransport({ baseUrl: `http://${address}`, defaultTimeoutMs: 30_000 });
  const producer = createClient(weir.ProducerService, transport);
  const consumer = createClient(weir.ConsumerService, transport);
  await createClient(weir.TopicService, transport).createTopic({ topic: { name: topic, partitions: 2 }, ifAbsent: true });

  const sent = Array.from({ length: 1000 }, (_, i) => ({
    key: text(`key-${i % 7}`),
    value: text(`value-${i}`),
    headers: [{ key: "n", value: text(`${i}`) }],
    timestampMs: 1_700_000_000_000n + BigInt(i),
  }));
  const answer = await producer.produce({ topic, records: sent });
  assert(answer.receipts.every((receipt) => receipt.committed));
  const placed = answer.receipts.flatMap((receipt) => receipt.recordIndexes.map((i) => [i, receipt.partition] as const));
  assert.deepEqual(
    placed.sort(([a], [b]) => a - b),
    sent.map((record, i) => [i, partitionOf(record.key)]),
  );

  const got = await consume(consumer);
  assert.equal(got.length, 1000);
  for (const partition of [0, 1]) {
    const wanted = sent.filter((record) => partitionOf(record.key) === partition);
    const found = got.filter((record) => record.partition === partition);
    assert.deepEqual(
      found.map(({ offset, key, value, timestampMs, headers }) => [offset, key, value, timestampMs, headers[0]?.value]),
      wanted.map(({ key, value, timestampMs, headers }, i) => [BigInt(i), key, value, timestampMs, headers[0]?.value]),
    );
  }

  const end = BigInt(got.filter((record) => record.partition === 0).length);
  await streamedBatches(producer, end);

  const { partitions } = await consumer.fetch({ partitions: [{ topic, offset: end }], format: weir.RecordFormat.BATCHES });
  const [fetched] = partitions;
  assert(fetched?.progress);
  assert.deepEqual(
    fetched.batches.map((stored) => stored.baseOffset),
    [end, end + 3n, end + 6n],
  );
  assert.equal(fetched.progress.nextOffset, end + 9n);
  for (const stored of fetched.batches) {
    assert.equal(crc32(stored.records), stored.crc);
    assert(equals(weir.RecordSetSchema, fromBinary(weir.RecordSetSchema, stored.records), fixtures.recordSet()));
  }

  const tail = (await consume(consumer)).filter((record) => record.partition === 0 && record.offset >= end);
  assert.equal(tail.length, 9);
  assert(tail[2]?.tombstone && tail[2].value === undefined);
  assert(tail[1]?.value?.length === 0 && tail[1].key?.length === 0);

  const refused = await producer.produce({ topic: `${topic}x`, records: [{ value: text("x") }] }).then(
    () => assert.fail("a topic that does not exist was written to"),
    (error: unknown) => ConnectError.from(error),
  );
  assert.equal(refused.code, Code.NotFound, refused.message);
  const why = reason(refused);
  assert.deepEqual([why?.reason, why?.metadata.topic, why?.metadata.applied], ["TOPIC_NOT_FOUND", `${topic}x`, "NO"]);

  console.log(`typescript: 1009 records in and out of ${topic}, plain, streamed and as batches; errors have reasons`);
}

async function streamedBatches(producer: Client<typeof weir.ProducerService>, end: bigint) {
  const plain = clone(weir.RecordBatchSchema, fixtures.batch());
  plain.producer = undefined;
  plain.baseSequence = 0;
  async function* frames(): AsyncGenerator<MessageInitShape<typeof weir.ProduceStreamRequestSchema>> {
    yield { frame: { case: "hello", value: { client: "conformance" } } };
    for (const n of [0n, 1n, 2n]) {
      yield { frame: { case: "append", value: { correlationId: (1n << 53n) + n, topic, batch: plain } } };
    }
  }
  const cases = [];
  const results = [];
  for await (const { frame } of producer.produceStream(frames())) {
    cases.push(frame.case);
    if (frame.case === "result") results.push([frame.value.correlationId, frame.value.receipt?.baseOffset]);
  }
  assert.equal(cases[0], "welcome");
  assert.deepEqual(
    results,
    [0n, 1n, 2n].map((n) => [(1n << 53n) + n, end + 3n * n]),
  );
}

async function consume(consumer: Client<typeof weir.ConsumerService>) {
  const records: weir.StoredRecord[] = [];
  for await (const message of consumer.consume({ topics: [topic], startAt: weir.StartAt.EARLIEST, untilEnd: true })) {
    records.push(...message.records);
  }
  return records;
}

const [command, address] = process.argv.slice(2);
if (command === "encode") {
  for (const [name, bytes] of fixtures.messages()) console.log(name, Buffer.from(bytes).toString("hex"));
} else if (command === "roundtrip" && address) {
  await roundtrip(address);
} else {
  console.error("usage: conformance.js encode | roundtrip HOST:PORT");
  process.exitCode = 2;
}
