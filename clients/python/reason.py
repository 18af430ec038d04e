"""Why a call failed: the reason and its facts, out of the error that any stub raises (../README.md)."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def reason(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
    """The reason and its facts; "" and none where it was not Weir that answered."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status and any(detail.Unpack(info) for detail in status.details) and info.domain == "weir":
        return info.reason, dict(info.metadata)
    return "", {}
