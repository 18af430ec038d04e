// Why a call failed, out of the error that any client throws (../../README.md).
import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** The reason (`reason`) and its facts (`metadata`); undefined where it was not Weir that answered. */
export function reason(error: unknown) {
  return ConnectError.from(error)
    .findDetails(ErrorInfoSchema)
    .find((info) => info.domain === "weir");
}
