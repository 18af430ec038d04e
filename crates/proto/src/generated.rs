//! What the build makes of proto/, as it is: our lints are not its rules.
#![allow(
    missing_docs,
    clippy::all,
    clippy::large_futures,
    clippy::missing_errors_doc,
    reason = "generated code"
)]

/// `weir.v1`: the public API.
pub mod v1 {
    tonic::include_proto!("weir.v1");
}

/// `weir.internal.v1`: what the parts of a cluster say to each other and keep on their disks. No client uses it.
pub mod internal {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("weir.internal.v1");
    }
}
