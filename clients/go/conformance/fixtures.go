package main

import (
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	weir "weir.dev/gen/weir/v1"
)

// The messages of ../../README.md, "Fixtures", as this language encodes them.

func recordSet() *weir.RecordSet {
	return &weir.RecordSet{Records: []*weir.BatchRecord{
		{Key: []byte("UA"), Value: []byte("hello"), Headers: []*weir.Header{{Key: "trace", Value: []byte{0, 255}}}},
		{OffsetDelta: 1, TimestampDeltaMs: -5, Key: []byte{}, Value: []byte{}},
		{OffsetDelta: 2, TimestampDeltaMs: 7, Key: []byte("é")},
	}}
}

func batch() *weir.RecordBatch {
	records := encoded(recordSet())
	return &weir.RecordBatch{
		LastOffsetDelta:   2,
		RecordCount:       3,
		BaseTimestampMs:   1_700_000_000_000,
		MaxTimestampMs:    1_700_000_000_007,
		Codec:             weir.Codec_CODEC_NONE,
		UncompressedBytes: int32(len(records)),
		Crc:               crc32.ChecksumIEEE(records),
		Producer:          &weir.ProducerIdentity{Id: 77, Epoch: 3},
		BaseSequence:      2_147_483_647,
		Records:           records,
	}
}

type fixture struct {
	name    string
	message proto.Message
}

func fixtures() []fixture {
	stored := batch()
	stored.BaseOffset = 1 << 40
	stored.LeaderEpoch = 5
	return []fixture{
		{"record_set", recordSet()},
		{"produce_records", &weir.ProduceRequest{
			Topic: "flights",
			Records: []*weir.NewRecord{
				{
					Key:         []byte("UA"),
					Value:       []byte("hello"),
					Headers:     []*weir.Header{{Key: "trace", Value: []byte{0, 255}}},
					TimestampMs: proto.Int64(0),
				},
				{Tombstone: true, KeyText: "é"},
			},
			Partition:          proto.Int32(0),
			Acks:               weir.Acks_ACKS_LEADER,
			Floor:              &weir.DurabilityFloor{Durability: weir.Durability_DURABILITY_DISK, Replicas: 2},
			ExpectedNextOffset: proto.Int64(0),
			RequiredFeatures:   []string{"fixtures"},
		}},
		{"produce_batch", &weir.ProduceRequest{Topic: "flights", Partition: proto.Int32(0), Batch: batch()}},
		{"stream_hello", &weir.ProduceStreamRequest{Frame: &weir.ProduceStreamRequest_Hello{
			Hello: &weir.ProduceHello{Client: "fixture", VersionMax: 1, Acks: weir.Acks_ACKS_ALL},
		}}},
		{"stream_append", &weir.ProduceStreamRequest{Frame: &weir.ProduceStreamRequest_Append{
			Append: &weir.BatchAppend{
				CorrelationId: 1<<53 + 1, Topic: "flights", Partition: 7, Resume: true, Batch: batch(),
			},
		}}},
		{"stream_delivery", &weir.FetchStreamResponse{Frame: &weir.FetchStreamResponse_Delivery{
			Delivery: &weir.BatchDelivery{
				SubscriptionId:   1,
				Generation:       2,
				NextOffset:       1<<40 + 3,
				HighWatermark:    1<<40 + 9,
				LastStableOffset: 1<<40 + 8,
				LogStartOffset:   4,
				Batch:            stored,
			},
		}}},
		{"fetch_response", &weir.FetchResponse{
			Partitions: []*weir.FetchedPartition{{
				Progress: &weir.PartitionProgress{
					Topic: "flights", Partition: 7, LogStartOffset: 4, NextOffset: 1<<40 + 3,
				},
				Batches: []*weir.RecordBatch{stored, stored},
			}},
			WaitedMs: 12,
		}},
	}
}

func encoded(message proto.Message) []byte {
	bytes, err := proto.Marshal(message)
	must(err == nil, "cannot encode", err)
	return bytes
}
