package dev.weir.examples;

import static dev.weir.examples.Fixtures.crc32;
import static dev.weir.examples.Fixtures.utf8;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import dev.weir.v1.AppendReceipt;
import dev.weir.v1.AppendResult;
import dev.weir.v1.BatchAppend;
import dev.weir.v1.ConsumeRequest;
import dev.weir.v1.ConsumerServiceGrpc;
import dev.weir.v1.CreateTopicRequest;
import dev.weir.v1.FetchPartition;
import dev.weir.v1.FetchRequest;
import dev.weir.v1.Header;
import dev.weir.v1.NewRecord;
import dev.weir.v1.ProduceHello;
import dev.weir.v1.ProduceRequest;
import dev.weir.v1.ProduceStreamRequest;
import dev.weir.v1.ProduceStreamResponse;
import dev.weir.v1.ProducerServiceGrpc;
import dev.weir.v1.RecordFormat;
import dev.weir.v1.RecordSet;
import dev.weir.v1.StartAt;
import dev.weir.v1.StoredRecord;
import dev.weir.v1.Topic;
import dev.weir.v1.TopicServiceGrpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

/** What every language's stubs must be able to do (../README.md): {@code encode}, and {@code roundtrip HOST:PORT}. */
public final class Conformance {
  private static final String TOPIC = "conformance-java";
  private static final int TIMEOUT_S = 30;

  private final ManagedChannel channel;

  private Conformance(ManagedChannel channel) {
    this.channel = channel;
  }

  public static void main(String[] args) throws Exception {
    if (args.length == 1 && args[0].equals("encode")) {
      Fixtures.messages()
          .forEach((name, message) -> System.out.println(name + " " + HexFormat.of().formatHex(message.toByteArray())));
    } else if (args.length == 2 && args[0].equals("roundtrip")) {
      // Default settings throughout: that is the point.
      var channel = ManagedChannelBuilder.forTarget(args[1]).usePlaintext().build();
      try {
        new Conformance(channel).roundtrip();
      } finally {
        channel.shutdownNow();
      }
    } else {
      System.err.println("usage: Conformance encode | roundtrip HOST:PORT");
      System.exit(2);
    }
  }

  private ProducerServiceGrpc.ProducerServiceBlockingStub producer() {
    return ProducerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private ConsumerServiceGrpc.ConsumerServiceBlockingStub consumer() {
    return ConsumerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private void roundtrip() throws Exception {
    TopicServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
        .createTopic(
            CreateTopicRequest.newBuilder()
                .setTopic(Topic.newBuilder().setName(TOPIC).setPartitions(2))
                .setIfAbsent(true)
                .build());

    plainRecords();
    var end = consume(0).size();
    streamedBatches(end);
    fetchedBatches(end);

    var all = consume(0);
    var tail = all.subList(end, all.size());
    check(tail.size() == 9, tail);
    check(tail.get(2).getTombstone() && !tail.get(2).hasValue(), tail);
    check(tail.get(1).hasValue() && tail.get(1).getValue().isEmpty() && tail.get(1).hasKey(), tail);

    errorsHaveReasons();
    System.out.printf("java: 1009 records in and out of %s, plain, streamed and as batches; errors have reasons%n", TOPIC);
  }

  private void plainRecords() {
    var sent =
        IntStream.range(0, 1000)
            .mapToObj(
                i ->
                    NewRecord.newBuilder()
                        .setKey(utf8("key-" + i % 7))
                        .setValue(utf8("value-" + i))
                        .addHeaders(Header.newBuilder().setKey("n").setValue(utf8("" + i)))
                        .setTimestampMs(1_700_000_000_000L + i)
                        .build())
            .toList();
    var answer = producer().produce(ProduceRequest.newBuilder().setTopic(TOPIC).addAllRecords(sent).build());
    check(answer.getReceiptsList().stream().allMatch(AppendReceipt::getCommitted), answer);
    var indexes = answer.getReceiptsList().stream().flatMap(r -> r.getRecordIndexesList().stream()).sorted().toList();
    check(indexes.equals(IntStream.range(0, 1000).boxed().toList()), indexes);
    for (var receipt : answer.getReceiptsList()) {
      for (int i : receipt.getRecordIndexesList()) {
        check(partitionOf(sent.get(i).getKey()) == receipt.getPartition(), receipt);
      }
    }
    for (int partition = 0; partition < 2; partition++) {
      int p = partition;
      var wanted = sent.stream().filter(r -> partitionOf(r.getKey()) == p).toList();
      var found = consume(p);
      check(wanted.size() == found.size(), wanted.size() + " written, " + found.size() + " read");
      for (int i = 0; i < wanted.size(); i++) {
        var a = wanted.get(i);
        var b = found.get(i);
        check(b.getOffset() == i && a.getKey().equals(b.getKey()) && a.getValue().equals(b.getValue()), b);
        check(a.getTimestampMs() == b.getTimestampMs() && a.getHeadersList().equals(b.getHeadersList()), b);
      }
    }
  }

  private void streamedBatches(long end) throws Exception {
    var batch = Fixtures.batch().clearProducer().clearBaseSequence().build();
    var answers = new ArrayList<ProduceStreamResponse>();
    var ended = new CompletableFuture<Void>();
    var requests =
        ProducerServiceGrpc.newStub(channel)
            .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
            .produceStream(
                new StreamObserver<>() {
                  @Override
                  public void onNext(ProduceStreamResponse answer) {
                    answers.add(answer);
                  }

                  @Override
                  public void onError(Throwable error) {
                    ended.completeExceptionally(error);
                  }

                  @Override
                  public void onCompleted() {
                    ended.complete(null);
                  }
                });
    requests.onNext(
        ProduceStreamRequest.newBuilder().setHello(ProduceHello.newBuilder().setClient("conformance")).build());
    for (long n = 0; n < 3; n++) {
      var append = BatchAppend.newBuilder().setCorrelationId((1L << 53) + n).setTopic(TOPIC).setBatch(batch);
      requests.onNext(ProduceStreamRequest.newBuilder().setAppend(append).build());
    }
    requests.onCompleted();
    ended.get(TIMEOUT_S, TimeUnit.SECONDS);

    check(answers.get(0).hasWelcome(), answers);
    var results = answers.stream().filter(ProduceStreamResponse::hasResult).map(ProduceStreamResponse::getResult).toList();
    check(results.stream().map(AppendResult::getCorrelationId).toList().equals(counting(1L << 53, 1)), results);
    check(results.stream().map(r -> r.getReceipt().getBaseOffset()).toList().equals(counting(end, 3)), results);
  }

  private void fetchedBatches(long end) throws InvalidProtocolBufferException {
    var fetched =
        consumer()
            .fetch(
                FetchRequest.newBuilder()
                    .addPartitions(FetchPartition.newBuilder().setTopic(TOPIC).setOffset(end))
                    .setFormat(RecordFormat.RECORD_FORMAT_BATCHES)
                    .build())
            .getPartitions(0);
    check(fetched.getBatchesList().stream().map(b -> b.getBaseOffset()).toList().equals(counting(end, 3)), fetched);
    check(fetched.getProgress().getNextOffset() == end + 9, fetched);
    for (var stored : fetched.getBatchesList()) {
      check(crc32(stored.getRecords()) == Integer.toUnsignedLong(stored.getCrc()), stored);
      check(RecordSet.parseFrom(stored.getRecords()).equals(Fixtures.recordSet()), stored);
    }
  }

  private void errorsHaveReasons() throws InvalidProtocolBufferException {
    var record = NewRecord.newBuilder().setValue(utf8("x"));
    try {
      producer().produce(ProduceRequest.newBuilder().setTopic(TOPIC + "x").addRecords(record).build());
    } catch (StatusRuntimeException error) {
      check(error.getStatus().getCode() == Status.Code.NOT_FOUND, error);
      var why = Reason.of(error).orElseThrow(() -> new AssertionError("no reason in " + error));
      check(why.getReason().equals("TOPIC_NOT_FOUND"), why);
      check(why.getMetadataOrThrow("topic").equals(TOPIC + "x"), why);
      check(why.getMetadataOrThrow("applied").equals("NO"), why);
      return;
    }
    throw new AssertionError("a topic that does not exist was written to");
  }

  private List<StoredRecord> consume(int partition) {
    var request =
        ConsumeRequest.newBuilder().addTopics(TOPIC).setStartAt(StartAt.START_AT_EARLIEST).setUntilEnd(true).build();
    var records = new ArrayList<StoredRecord>();
    consumer().consume(request).forEachRemaining(message -> records.addAll(message.getRecordsList()));
    return records.stream().filter(record -> record.getPartition() == partition).toList();
  }

  private static List<Long> counting(long from, long step) {
    return List.of(from, from + step, from + 2 * step);
  }

  private static int partitionOf(ByteString key) {
    return (int) (crc32(key) % 2);
  }

  private static void check(boolean ok, Object what) {
    if (!ok) {
      throw new AssertionError(what);
    }
  }
}
