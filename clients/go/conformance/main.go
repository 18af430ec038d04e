// Conformance is what every language's stubs must be able to do (../../README.md): `encode`, and
// `roundtrip HOST:PORT`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	weir "weir.dev/gen/weir/v1"
)

const topic = "conformance-go"

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "encode":
		for _, f := range fixtures() {
			fmt.Printf("%s %x\n", f.name, encoded(f.message))
		}
	case len(os.Args) == 3 && os.Args[1] == "roundtrip":
		roundtrip(os.Args[2])
	default:
		log.Fatal("usage: conformance encode | roundtrip HOST:PORT")
	}
}

func roundtrip(address string) {
	// Default settings throughout: that is the point.
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err == nil, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	producer := weir.NewProducerServiceClient(conn)
	consumer := weir.NewConsumerServiceClient(conn)

	_, err = weir.NewTopicServiceClient(conn).CreateTopic(ctx, &weir.CreateTopicRequest{
		Topic: &weir.Topic{Name: topic, Partitions: 2}, IfAbsent: true,
	})
	must(err == nil, "create", err)

	plainRecords(ctx, producer, consumer)
	end := int64(len(inPartition(consume(ctx, consumer), 0)))
	streamedBatches(ctx, producer, end)
	fetchedBatches(ctx, consumer, end)

	tail := inPartition(consume(ctx, consumer), 0)[end:]
	must(len(tail) == 9 && tail[2].Tombstone && tail[2].Value == nil, "tail", tail)
	must(tail[1].Value != nil && len(tail[1].Value) == 0 && tail[1].Key != nil, "empty is not absent", tail)

	_, err = producer.Produce(ctx, &weir.ProduceRequest{
		Topic: topic + "x", Records: []*weir.NewRecord{{Value: []byte("x")}},
	})
	must(status.Code(err) == codes.NotFound, "code", err)
	why, facts := reason(err)
	must(why == "TOPIC_NOT_FOUND" && facts["topic"] == topic+"x" && facts["applied"] == "NO", "reason", why, facts)

	fmt.Printf("go: 1009 records in and out of %s, plain, streamed and as batches; errors have reasons\n", topic)
}

func plainRecords(ctx context.Context, producer weir.ProducerServiceClient, consumer weir.ConsumerServiceClient) {
	var sent []*weir.NewRecord
	for i := range 1000 {
		sent = append(sent, &weir.NewRecord{
			Key:         fmt.Appendf(nil, "key-%d", i%7),
			Value:       fmt.Appendf(nil, "value-%d", i),
			Headers:     []*weir.Header{{Key: "n", Value: fmt.Append(nil, i)}},
			TimestampMs: proto.Int64(1_700_000_000_000 + int64(i)),
		})
	}
	answer, err := producer.Produce(ctx, &weir.ProduceRequest{Topic: topic, Records: sent})
	must(err == nil, "produce", err)
	var indexes []int32
	for _, receipt := range answer.Receipts {
		must(receipt.Committed, "not committed", receipt)
		indexes = append(indexes, receipt.RecordIndexes...)
		for _, i := range receipt.RecordIndexes {
			must(partitionOf(sent[i]) == receipt.Partition, "record", i, "in partition", receipt.Partition)
		}
	}
	slices.Sort(indexes)
	must(len(slices.Compact(indexes)) == 1000, "receipts name", len(indexes))

	got := consume(ctx, consumer)
	must(len(got) == 1000, "read", len(got))
	for partition := range int32(2) {
		wanted := slices.DeleteFunc(slices.Clone(sent), func(r *weir.NewRecord) bool { return partitionOf(r) != partition })
		found := inPartition(got, partition)
		must(len(wanted) == len(found), "partition", partition, len(wanted), len(found))
		for i, a := range wanted {
			b := found[i]
			must(b.Offset == int64(i) && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
				*a.TimestampMs == b.TimestampMs && proto.Equal(a.Headers[0], b.Headers[0]), a, b)
		}
	}
}

func streamedBatches(ctx context.Context, producer weir.ProducerServiceClient, end int64) {
	plain := batch()
	plain.Producer, plain.BaseSequence = nil, 0
	stream, err := producer.ProduceStream(ctx)
	must(err == nil, "stream", err)
	must(stream.Send(&weir.ProduceStreamRequest{Frame: &weir.ProduceStreamRequest_Hello{
		Hello: &weir.ProduceHello{Client: "conformance"},
	}}) == nil, "hello")
	for n := range int64(3) {
		must(stream.Send(&weir.ProduceStreamRequest{Frame: &weir.ProduceStreamRequest_Append{
			Append: &weir.BatchAppend{CorrelationId: 1<<53 + n, Topic: topic, Batch: plain},
		}}) == nil, "append")
	}
	must(stream.CloseSend() == nil, "half close")
	var results []*weir.AppendResult
	for n := 0; ; n++ {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(err == nil, "answer", err)
		must(n > 0 || message.GetWelcome() != nil, "no welcome but", message)
		if result := message.GetResult(); result != nil {
			results = append(results, result)
		}
	}
	must(len(results) == 3, results)
	for n, result := range results {
		must(result.CorrelationId == 1<<53+int64(n) && result.Receipt.GetBaseOffset() == end+3*int64(n), results)
	}
}

func fetchedBatches(ctx context.Context, consumer weir.ConsumerServiceClient, end int64) {
	answer, err := consumer.Fetch(ctx, &weir.FetchRequest{
		Partitions: []*weir.FetchPartition{{Topic: topic, Offset: end}},
		Format:     weir.RecordFormat_RECORD_FORMAT_BATCHES,
	})
	must(err == nil, "fetch", err)
	fetched := answer.Partitions[0]
	must(len(fetched.Batches) == 3 && fetched.Progress.NextOffset == end+9, fetched)
	for n, stored := range fetched.Batches {
		must(stored.BaseOffset == end+3*int64(n), stored)
		must(crc32.ChecksumIEEE(stored.Records) == stored.Crc, "crc")
		var records weir.RecordSet
		must(proto.Unmarshal(stored.Records, &records) == nil && proto.Equal(&records, recordSet()), &records)
	}
}

func consume(ctx context.Context, consumer weir.ConsumerServiceClient) []*weir.StoredRecord {
	stream, err := consumer.Consume(ctx, &weir.ConsumeRequest{
		Topics: []string{topic}, StartAt: weir.StartAt_START_AT_EARLIEST, UntilEnd: true,
	})
	must(err == nil, "consume", err)
	var records []*weir.StoredRecord
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return records
		}
		must(err == nil, "consume", err)
		records = append(records, message.Records...)
	}
}

func inPartition(records []*weir.StoredRecord, partition int32) []*weir.StoredRecord {
	return slices.DeleteFunc(slices.Clone(records), func(r *weir.StoredRecord) bool { return r.Partition != partition })
}

func partitionOf(record *weir.NewRecord) int32 {
	return int32(crc32.ChecksumIEEE(record.Key) % 2)
}

func must(ok bool, what ...any) {
	if !ok {
		log.Panicln(what...)
	}
}
