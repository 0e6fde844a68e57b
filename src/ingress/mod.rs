//! The way in: what listens. Wire ↔ domain lives here and nowhere else.

use crate::decode;

pub mod grpc;

impl From<proto::ingest::publish_request::Payload> for decode::Payload {
    fn from(payload: proto::ingest::publish_request::Payload) -> Self {
        use proto::ingest::publish_request::Payload;
        match payload {
            Payload::Rows(bytes) => Self::Rows(bytes),
            Payload::ArrowIpc(bytes) => Self::ArrowIpc(bytes),
            Payload::CloudEvents(bytes) => Self::CloudEvents(bytes),
        }
    }
}

/// The generated wire types.
#[allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated from proto/, which documents it"
)]
pub mod proto {
    pub mod bailiwick {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/bailiwick.v1.rs"));
        }
    }

    pub mod io {
        pub mod cloudevents {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/io.cloudevents.v1.rs"));
            }
        }
    }

    pub use bailiwick::v1 as ingest;
    pub use io::cloudevents::v1 as cloudevents;

    /// The encoded file descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bailiwick.bin"));
}
