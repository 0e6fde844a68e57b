//! `bailiwick certs`: certificates to try TLS with, and what any certificate says.
//!
//! The authority that it makes is for development: its key lies beside what it signs.

use std::path::{Path, PathBuf};

use super::Failure;

mod issue;
mod show;

/// What `bailiwick certs` is told.
#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Make a development authority: ca.pem and ca.key.
    Ca {
        /// The directory. It is made if it is not there.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The domain that all its identities belong to.
        #[arg(long, value_name = "DOMAIN", default_value = TRUST_DOMAIN)]
        trust_domain: String,
        /// For how many days it holds.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..))]
        days: u16,
    },
    /// Issue a gateway's certificate: NAME.pem and NAME.key, for spiffe://DOMAIN/gateways/NAME.
    Gateway {
        /// The certificate.
        #[command(flatten)]
        leaf: Leaf,
        /// A host or network address that it is reached under. Give this option once for each.
        #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
        hosts: Vec<String>,
    },
    /// Issue a producer's certificate: NAME.pem and NAME.key, for spiffe://DOMAIN/producers/NAME.
    Producer {
        /// The certificate.
        #[command(flatten)]
        leaf: Leaf,
    },
    /// Print in plain words what certificates say: of a file, or of a gateway that runs.
    Show {
        /// A file in PEM, or HOST:PORT.
        #[arg(value_name = "FILE|HOST:PORT")]
        what: String,
        /// A configuration: then what the certificate may do there is printed, too.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// A certificate to be issued.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Leaf {
    /// The directory of the authority, which `certs ca` made.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The name: the last part of the identity, and the name of the files.
    pub name: String,
    /// For how many days it holds.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub days: u16,
    /// Put it in the place of one that is there.
    #[arg(long)]
    pub replace: bool,
}

/// The trust domain of the identities that are made, unless another one is asked for.
pub const TRUST_DOMAIN: &str = "bailiwick.test";

/// Makes an authority in a directory, with certificates for gateways and producers of these names, for a day.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn make(directory: &Path, gateways: &[&str], producers: &[&str]) -> anyhow::Result<()> {
    issue::authority(directory, TRUST_DOMAIN, 1)?;
    let leaf = |name: &str| Leaf { directory: directory.to_owned(), name: name.to_owned(), days: 1, replace: false };
    let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    for name in gateways {
        issue::leaf(&leaf(name), &issue::For::Gateway(hosts.clone()))?;
    }
    for name in producers {
        issue::leaf(&leaf(name), &issue::For::Producer)?;
    }
    Ok(())
}

/// Does what it is told. The report for stdout.
///
/// # Errors
/// When a file cannot be written or used.
pub async fn certs(task: Task) -> Result<String, Failure> {
    Ok(match task {
        Task::Ca { directory, trust_domain, days } => issue::authority(&directory, &trust_domain, days)?,
        Task::Gateway { leaf, hosts } => issue::leaf(&leaf, &issue::For::Gateway(hosts))?,
        Task::Producer { leaf } => issue::leaf(&leaf, &issue::For::Producer)?,
        Task::Show { what, config } => {
            let config = config.as_deref().map(super::load).transpose()?;
            let certificates = show::found(Path::new(&what), &what).await?;
            show::text(&certificates, config.as_ref())
        }
    })
}
