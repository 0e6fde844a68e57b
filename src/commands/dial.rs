//! How `send` and `bench` reach a gateway.

use std::path::PathBuf;

use crate::identity::trust;
use crate::ingress::grpc::client::Dialer;

/// What the gateway is verified with, and what is shown to it.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "With TLS (https://)")]
pub struct Args {
    /// The authority that signs the gateway's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate to show, in PEM: it says who sends.
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// A file with a bearer token, instead of a certificate. It is read anew for each call.
    #[arg(long, value_name = "FILE", requires = "ca", conflicts_with = "cert")]
    pub token_file: Option<PathBuf>,
}

impl Args {
    /// What connects in this way.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn dialer(self) -> anyhow::Result<Dialer> {
        let Some(ca) = self.ca else { return Ok(Dialer::default()) };
        let shown = self.cert.zip(self.key);
        let dialer = Dialer::verifying(trust::client(&trust::Files { ca, shown })?);
        Ok(match self.token_file {
            Some(file) => dialer.with_token(file),
            None => dialer,
        })
    }
}
