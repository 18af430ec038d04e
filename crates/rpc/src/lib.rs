//! What stands between a socket and a gRPC handler, the same for every service: how HTTP/2 is tuned
//! ([`tuning`]). It knows no call and no service.

pub mod tuning;
