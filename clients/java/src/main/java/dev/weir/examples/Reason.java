package dev.weir.examples;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Optional;

/** Why a call failed, out of the error that any stub throws (../README.md). */
final class Reason {
  private Reason() {}

  /** The reason (getReason) and its facts (getMetadataMap); empty where it was not Weir that answered. */
  static Optional<ErrorInfo> of(StatusRuntimeException error) throws InvalidProtocolBufferException {
    var status = StatusProto.fromThrowable(error);
    if (status == null) return Optional.empty();
    for (var detail : status.getDetailsList()) {
      if (!detail.is(ErrorInfo.class)) continue;
      var info = detail.unpack(ErrorInfo.class);
      if (info.getDomain().equals("weir")) return Optional.of(info);
    }
    return Optional.empty();
  }
}
