//! Generates the stubs from proto/. protox compiles in Rust, so no protoc has to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let mut files = Vec::new();
    for folder in ["weir/v1", "weir/internal/v1"] {
        let dir = root.join(folder);
        println!("cargo:rerun-if-changed={}", dir.display());
        if !dir.exists() {
            continue;
        }
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "proto") {
                println!("cargo:rerun-if-changed={}", path.display());
                files.push(path);
            }
        }
    }
    files.sort();

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let set = protox::Compiler::new([&root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?
        .encode_file_descriptor_set();
    fs::write(out.join("weir.binpb"), &set)?;

    // What reflection shows: the public files alone.
    let public = protox::Compiler::new([&root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(files.iter().filter(|path| !path.to_string_lossy().contains("internal")))?
        .encode_file_descriptor_set();
    fs::write(out.join("public.binpb"), public)?;

    tonic_prost_build::configure()
        // Payloads are shared slices of the message they came in, never copies.
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(prost_types_of(&set)?)?;
    Ok(())
}

fn prost_types_of(set: &[u8]) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(set)
}
