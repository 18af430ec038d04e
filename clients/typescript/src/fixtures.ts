// The messages of ../README.md, "Fixtures", as this language encodes them.
import { crc32 } from "node:zlib";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import * as weir from "./weir.js";

const text = (s: string) => new TextEncoder().encode(s);
const trace = { key: "trace", value: Uint8Array.of(0, 255) };

export const recordSet = () =>
  create(weir.RecordSetSchema, {
    records: [
      { key: text("UA"), value: text("hello"), headers: [trace] },
      { offsetDelta: 1, timestampDeltaMs: -5n, key: text(""), value: text("") },
      { offsetDelta: 2, timestampDeltaMs: 7n, key: text("é") },
    ],
  });

export function batch(baseOffset = 0n, leaderEpoch = 0) {
  const records = toBinary(weir.RecordSetSchema, recordSet());
  return create(weir.RecordBatchSchema, {
    baseOffset,
    leaderEpoch,
    lastOffsetDelta: 2,
    recordCount: 3,
    baseTimestampMs: 1_700_000_000_000n,
    maxTimestampMs: 1_700_000_000_007n,
    codec: weir.Codec.NONE,
    uncompressedBytes: records.length,
    crc: crc32(records),
    producer: { id: 77n, epoch: 3 },
    baseSequence: 2_147_483_647,
    records,
  });
}

export function messages(): [string, Uint8Array][] {
  const stored = batch(1n << 40n, 5);
  const request = (init: MessageInitShape<typeof weir.ProduceRequestSchema>) =>
    toBinary(weir.ProduceRequestSchema, create(weir.ProduceRequestSchema, init));
  const frame = (init: MessageInitShape<typeof weir.ProduceStreamRequestSchema>) =>
    toBinary(weir.ProduceStreamRequestSchema, create(weir.ProduceStreamRequestSchema, init));
  return [
    ["record_set", toBinary(weir.RecordSetSchema, recordSet())],
    [
      "produce_records",
      request({
        topic: "flights",
        records: [
          { key: text("UA"), value: text("hello"), headers: [trace], timestampMs: 0n },
          { tombstone: true, keyText: "é" },
        ],
        partition: 0,
        acks: weir.Acks.LEADER,
        floor: { durability: weir.Durability.DISK, replicas: 2 },
        expectedNextOffset: 0n,
        requiredFeatures: ["fixtures"],
      }),
    ],
    ["produce_batch", request({ topic: "flights", partition: 0, batch: batch() })],
    ["stream_hello", frame({ frame: { case: "hello", value: { client: "fixture", versionMax: 1, acks: weir.Acks.ALL } } })],
    [
      "stream_append",
      frame({
        frame: {
          case: "append",
          value: { correlationId: (1n << 53n) + 1n, topic: "flights", partition: 7, resume: true, batch: batch() },
        },
      }),
    ],
    [
      "stream_delivery",
      toBinary(
        weir.FetchStreamResponseSchema,
        create(weir.FetchStreamResponseSchema, {
          frame: {
            case: "delivery",
            value: {
              subscriptionId: 1n,
              generation: 2n,
              nextOffset: (1n << 40n) + 3n,
              highWatermark: (1n << 40n) + 9n,
              lastStableOffset: (1n << 40n) + 8n,
              logStartOffset: 4n,
              batch: stored,
            },
          },
        }),
      ),
    ],
    [
      "fetch_response",
      toBinary(
        weir.FetchResponseSchema,
        create(weir.FetchResponseSchema, {
          partitions: [
            {
              progress: { topic: "flights", partition: 7, logStartOffset: 4n, nextOffset: (1n << 40n) + 3n },
              batches: [stored, stored],
            },
          ],
          waitedMs: 12n,
        }),
      ),
    ],
  ];
}
