//! The generated stubs of proto/: messages, clients, servers. Nothing is written by hand here but the module tree
//! and the [`codec`]; what the fields mean stands in the proto files.

pub mod codec;

/// `weir.v1`: the public API.
#[allow(
    missing_docs,
    clippy::all,
    clippy::large_futures,
    clippy::missing_errors_doc,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("weir.v1");
}

/// `weir.internal.v1`: what the parts of a cluster say to each other and keep on their disks. No client uses it.
pub mod internal {
    /// Version 1.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::large_futures,
        clippy::missing_errors_doc,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("weir.internal.v1");
    }
}

/// The compiled descriptors of every file, with comments: for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weir.binpb"));

/// The same, of the public API alone.
pub const PUBLIC_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.binpb"));
