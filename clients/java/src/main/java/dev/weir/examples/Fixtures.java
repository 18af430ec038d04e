package dev.weir.examples;

import com.google.protobuf.ByteString;
import com.google.protobuf.MessageLite;
import dev.weir.v1.Acks;
import dev.weir.v1.BatchAppend;
import dev.weir.v1.BatchDelivery;
import dev.weir.v1.BatchRecord;
import dev.weir.v1.Codec;
import dev.weir.v1.Durability;
import dev.weir.v1.DurabilityFloor;
import dev.weir.v1.FetchResponse;
import dev.weir.v1.FetchStreamResponse;
import dev.weir.v1.FetchedPartition;
import dev.weir.v1.Header;
import dev.weir.v1.NewRecord;
import dev.weir.v1.PartitionProgress;
import dev.weir.v1.ProduceHello;
import dev.weir.v1.ProduceRequest;
import dev.weir.v1.ProduceStreamRequest;
import dev.weir.v1.ProducerIdentity;
import dev.weir.v1.RecordBatch;
import dev.weir.v1.RecordSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.zip.CRC32;

/** The messages of ../README.md, "Fixtures", as this language encodes them. */
final class Fixtures {
  private Fixtures() {}

  static RecordSet recordSet() {
    return RecordSet.newBuilder()
        .addRecords(BatchRecord.newBuilder().setKey(utf8("UA")).setValue(utf8("hello")).addHeaders(trace()))
        .addRecords(
            BatchRecord.newBuilder().setOffsetDelta(1).setTimestampDeltaMs(-5).setKey(utf8("")).setValue(utf8("")))
        .addRecords(BatchRecord.newBuilder().setOffsetDelta(2).setTimestampDeltaMs(7).setKey(utf8("é")))
        .build();
  }

  static RecordBatch.Builder batch() {
    var records = recordSet().toByteString();
    return RecordBatch.newBuilder()
        .setLastOffsetDelta(2)
        .setRecordCount(3)
        .setBaseTimestampMs(1_700_000_000_000L)
        .setMaxTimestampMs(1_700_000_000_007L)
        .setCodec(Codec.CODEC_NONE)
        .setUncompressedBytes(records.size())
        .setCrc((int) crc32(records))
        .setProducer(ProducerIdentity.newBuilder().setId(77).setEpoch(3))
        .setBaseSequence(2_147_483_647)
        .setRecords(records);
  }

  static Map<String, MessageLite> messages() {
    var stored = batch().setBaseOffset(1L << 40).setLeaderEpoch(5).build();
    var messages = new LinkedHashMap<String, MessageLite>();
    messages.put("record_set", recordSet());
    messages.put(
        "produce_records",
        ProduceRequest.newBuilder()
            .setTopic("flights")
            .addRecords(
                NewRecord.newBuilder()
                    .setKey(utf8("UA"))
                    .setValue(utf8("hello"))
                    .addHeaders(trace())
                    .setTimestampMs(0))
            .addRecords(NewRecord.newBuilder().setTombstone(true).setKeyText("é"))
            .setPartition(0)
            .setAcks(Acks.ACKS_LEADER)
            .setFloor(DurabilityFloor.newBuilder().setDurability(Durability.DURABILITY_DISK).setReplicas(2))
            .setExpectedNextOffset(0)
            .addRequiredFeatures("fixtures")
            .build());
    messages.put(
        "produce_batch", ProduceRequest.newBuilder().setTopic("flights").setPartition(0).setBatch(batch()).build());
    messages.put(
        "stream_hello",
        ProduceStreamRequest.newBuilder()
            .setHello(ProduceHello.newBuilder().setClient("fixture").setVersionMax(1).setAcks(Acks.ACKS_ALL))
            .build());
    messages.put(
        "stream_append",
        ProduceStreamRequest.newBuilder()
            .setAppend(
                BatchAppend.newBuilder()
                    .setCorrelationId((1L << 53) + 1)
                    .setTopic("flights")
                    .setPartition(7)
                    .setResume(true)
                    .setBatch(batch()))
            .build());
    messages.put(
        "stream_delivery",
        FetchStreamResponse.newBuilder()
            .setDelivery(
                BatchDelivery.newBuilder()
                    .setSubscriptionId(1)
                    .setGeneration(2)
                    .setNextOffset((1L << 40) + 3)
                    .setHighWatermark((1L << 40) + 9)
                    .setLastStableOffset((1L << 40) + 8)
                    .setLogStartOffset(4)
                    .setBatch(stored))
            .build());
    messages.put(
        "fetch_response",
        FetchResponse.newBuilder()
            .addPartitions(
                FetchedPartition.newBuilder()
                    .setProgress(
                        PartitionProgress.newBuilder()
                            .setTopic("flights")
                            .setPartition(7)
                            .setLogStartOffset(4)
                            .setNextOffset((1L << 40) + 3))
                    .addBatches(stored)
                    .addBatches(stored))
            .setWaitedMs(12)
            .build());
    return messages;
  }

  static ByteString utf8(String text) {
    return ByteString.copyFromUtf8(text);
  }

  /** As an unsigned number. */
  static long crc32(ByteString bytes) {
    var crc = new CRC32();
    crc.update(bytes.asReadOnlyByteBuffer());
    return crc.getValue();
  }

  private static Header trace() {
    return Header.newBuilder().setKey("trace").setValue(ByteString.copyFrom(new byte[] {0, (byte) 255})).build();
  }
}
