//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-env=BAILIWICK_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=proto");
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" && env::var("CARGO_CFG_TARGET_ENV")? == "gnu" {
        // Relocations are packed: 4 MB less of the file, which the dynamic linker would read at each start.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let mut files = protox::compile(["proto/bailiwick/v1/ingest.proto"], ["proto"])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("shipped.rs"), shipped_policies()?)?;
    // Served by reflection; `google.rpc.Status` is included so that generic clients can resolve it.
    let descriptor = PathBuf::from(env::var("OUT_DIR")?).join("bailiwick.bin");
    fs::write(descriptor, files.encode_to_vec())?;
    keep_encoded(&mut files, "PublishRequest", "cloud_events");
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::ingress::grpc::codec::Codec")
        .extern_path(".google.rpc.Status", "::tonic_types::pb::Status")
        .compile_fds(files)?;
    // What leaves is no part of the service.
    let releases = protox::compile(["proto/bailiwick/release/v1/release.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(releases)?;
    Ok(())
}

/// The commit that is built. `BAILIWICK_COMMIT` says it where there is no git; development builds do not follow git, so
/// that a commit alone does not build everything anew.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=BAILIWICK_COMMIT");
    if let Ok(commit) = env::var("BAILIWICK_COMMIT") {
        return commit;
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return "unknown, a development build".to_owned();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // It grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if is_changed { format!("{commit}, changed") } else { commit }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The policies that `bailiwick init` writes, as an array of their paths and texts.
fn shipped_policies() -> Result<String, Box<dyn Error>> {
    println!("cargo:rerun-if-changed=policies");
    let mut list = String::from("&[");
    for directory in ["", "regimes"] {
        let mut files: Vec<PathBuf> = fs::read_dir(PathBuf::from("policies").join(directory))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_, std::io::Error>>()?;
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let path = file.to_str().ok_or("a path that is no text")?;
            if path.ends_with(".toml") && !path.ends_with(".test.toml") {
                let name = path.strip_prefix("policies/").unwrap_or(path);
                list += &format!(
                    "({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))), ",
                    format!("/{path}")
                );
            }
        }
    }
    Ok(list + "]")
}

/// Has the Rust code take a field that is a message as the bytes that it is on the wire: it is walked, and not built.
fn keep_encoded(files: &mut FileDescriptorSet, message: &str, field: &str) {
    let messages = files.file.iter_mut().flat_map(|file| &mut file.message_type);
    let fields = messages.filter(|found| found.name() == message).flat_map(|message| &mut message.field);
    for field in fields.filter(|found| found.name() == field) {
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
}
