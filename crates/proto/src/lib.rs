//! The generated stubs of proto/: messages, clients, servers. Written by hand are only the module
//! tree, the [`codec`], and the [`body`] of the streams of batches; what the fields mean stands in the proto files.

pub mod body;
pub mod codec;
mod generated;

pub use generated::{internal, v1};

/// The compiled descriptors of every file, with comments: for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weir.binpb"));

/// The same, of the public API alone.
pub const PUBLIC_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.binpb"));
