package dev.weir.examples;

import com.google.protobuf.ByteString;
import dev.weir.v1.ConsumeRequest;
import dev.weir.v1.ConsumerServiceGrpc;
import dev.weir.v1.NewRecord;
import dev.weir.v1.ProduceRequest;
import dev.weir.v1.ProducerServiceGrpc;
import io.grpc.ManagedChannelBuilder;

/** One record in, all records out, with nothing but generated stubs: {@code Quickstart [HOST:PORT [TOPIC]]}. */
public final class Quickstart {
  private Quickstart() {}

  public static void main(String[] args) {
    var address = args.length > 0 ? args[0] : "localhost:9347";
    var topic = args.length > 1 ? args[1] : "greetings";

    var channel = ManagedChannelBuilder.forTarget(address).usePlaintext().build();
    var record = NewRecord.newBuilder().setValue(ByteString.copyFromUtf8("hello"));
    ProducerServiceGrpc.newBlockingStub(channel)
        .produce(ProduceRequest.newBuilder().setTopic(topic).addRecords(record).build());
    ConsumerServiceGrpc.newBlockingStub(channel)
        .consume(ConsumeRequest.newBuilder().addTopics(topic).setUntilEnd(true).build())
        .forEachRemaining(
            message ->
                message.getRecordsList().forEach(r -> System.out.println(r.getOffset() + " " + r.getValue().toStringUtf8())));
    channel.shutdown();
  }
}
