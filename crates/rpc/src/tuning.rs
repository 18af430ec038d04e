//! HTTP/2 as Weir wants it, in one place for every server and every client that we build.
//!
//! gRPC is fast or slow by a handful of settings, and the defaults are the slow ones: 16 KiB frames cost one
//! `writev` each and halve the throughput of large batches, 64 KiB windows stall a stream once per round trip.
//! The other half of these settings keeps a server alive under clients that misbehave: without them a connection
//! may open any number of streams, and hyper's guard against reset floods is off.
//!
//! [`server`] and [`endpoint`] apply everything to tonic's builders. What a socket needs (`TCP_NODELAY`) is set
//! where sockets are made, in `weir-runtime`: without it on *both* ends a 64 KiB call waits for a delayed
//! acknowledgement. Stock clients bring their own settings and work; they are only slower.
//!
//! This is not the place of limits that belong to a call (message sizes, deadlines) or to an operator (how many
//! connections): those are configuration.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// The largest DATA frame that we are ready to receive. The *receiver's* setting governs what a sender may send,
/// so both ends need it. A batch of the default target (252 KiB) fits into one frame together with its envelope.
pub const FRAME_BYTES: u32 = 256 * 1024;

/// How much of one stream may be on its way unread. At least two batches of 1 MiB, so that the sender never waits
/// for a window update while the receiver works.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The same for all streams of a connection together. Below this, h2 takes a burst of small unread frames for an
/// attack and ends the whole connection (ENHANCE_YOUR_CALM).
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// How many calls one connection may have open. tonic's own default is no limit at all.
pub const CONCURRENT_STREAMS_MAX: u32 = 1024;

/// The largest header list taken, request or reply.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// How many streams that the peer opened and reset again may wait to be accepted before the connection is ended.
pub const PENDING_ACCEPT_RESETS_MAX: usize = 20;

/// How many streams we may have reset because of the peer's errors before the connection is ended. tonic hands
/// "not set" on as "no limit", which would remove hyper's guard.
pub const LOCAL_ERROR_RESETS_MAX: usize = 1024;

/// A silent connection is asked for a sign of life this often ...
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// ... and closed if none came within this time.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Applies the settings to a server. It answers HTTP/2 alone unless the caller says otherwise afterwards.
#[must_use]
pub fn server<L>(server: Server<L>) -> Server<L> {
    server
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_ACCEPT_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_nodelay(true)
}

/// Applies the settings to a client. A connection is kept alive while it has calls, not while it is idle.
#[must_use]
pub fn endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .tcp_nodelay(true)
}
