//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/bailiwick/v1/ingest.proto"], ["proto"])?;
    // Served by reflection; `google.rpc.Status` is included so that generic clients can resolve it.
    let descriptor = PathBuf::from(env::var("OUT_DIR")?).join("bailiwick.bin");
    fs::write(descriptor, files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .extern_path(".google.rpc.Status", "::tonic_types::pb::Status")
        .compile_fds(files)?;
    Ok(())
}
