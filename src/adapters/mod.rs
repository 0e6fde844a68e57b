//! What is done in the world: each module wraps one outside thing, and none imports another.

pub mod file;
pub mod grpc;
pub mod journal;
pub mod kafka;
pub mod knowledge;
pub mod onnx;
