// All of weir.v1 as one module: `import * as weir from "./weir.js"`.
export * from "./gen/weir/v1/admin_pb.js";
export * from "./gen/weir/v1/errors_pb.js";
export * from "./gen/weir/v1/fetch_pb.js";
export * from "./gen/weir/v1/metadata_pb.js";
export * from "./gen/weir/v1/produce_pb.js";
export * from "./gen/weir/v1/record_pb.js";
export * from "./gen/weir/v1/stream_pb.js";
export * from "./gen/weir/v1/topics_pb.js";
