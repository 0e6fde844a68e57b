//! Certificates of every kind, good and bad, and a gateway that asks for them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bailiwick::commands::init::init;
use bailiwick::identity::trust;
use bailiwick::ingress::grpc::client::Dialer;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::folder::Folder;
use super::records::now;

/// The trust domain of the tests.
pub const DOMAIN: &str = "corp.example";

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with those above it, and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

fn authority(name: &str, depth: u8) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

/// A moment that is so many seconds from now.
pub fn moment(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(now().as_second() + seconds).unwrap()
}

impl Authority {
    /// One that signs itself.
    pub fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name, 1), KeyPair::generate().unwrap()).unwrap())
    }

    /// One that signs itself and holds from one moment to another, in seconds from now.
    pub fn holding(name: &str, from: i64, until: i64) -> Self {
        let mut parameters = authority(name, 1);
        (parameters.not_before, parameters.not_after) = (moment(from), moment(until));
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// One that this one signs.
    pub fn below(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(authority(name, 0), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A producer's certificate as it should be, for an hour, then changed.
    pub fn client(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "a producer");
        parameters.subject_alt_names = vec![uri_name(uri)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = moment(-60);
        parameters.not_after = moment(3_600);
        change(&mut parameters);
        self.sign(&parameters, &KeyPair::generate().unwrap())
    }

    /// A gateway's certificate for this machine, for an hour, then changed.
    pub fn gateway(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.client("spiffe://corp.example/gateways/1", |parameters| {
            parameters.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
            parameters.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            change(parameters);
        })
    }

    pub fn sign(&self, parameters: &CertificateParams, key: &KeyPair) -> Issued {
        let certificate = parameters.signed_by(key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A list of revoked certificates, which is to be replaced in so many seconds.
    pub fn revokes(&self, serials: &[u64], next: i64) -> String {
        self.revokes_from(serials, -7_200, next)
    }

    /// The same, made in so many seconds.
    pub fn revokes_from(&self, serials: &[u64], made: i64, next: i64) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: moment(-60),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: moment(made),
            next_update: moment(next),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

pub fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

impl Issued {
    /// The same with a certificate after its own.
    pub fn with(mut self, above: &str) -> Self {
        self.certificate.push_str(above);
        self
    }
}

/// The identity of a till.
pub fn till(name: &str) -> String {
    format!("spiffe://{DOMAIN}/tills/{name}")
}

/// The rules of [`deployment`]: each till writes under a name of its own, the office also for tills.
pub const RULES: &str = r#"
[producers."till-*"]
identities = ["spiffe://corp.example/tills/*"]

[producers.office]
identities = ["spiffe://corp.example/office"]

[permissions.tills]
identities = ["spiffe://corp.example/tills/*"]
write      = ["events"]

[permissions.office]
identities = ["spiffe://corp.example/office"]
write      = ["events"]
as         = ["till-*"]
read       = ["reflection"]

[permissions.watchers]
identities = ["spiffe://corp.example/prometheus"]
read       = ["metrics"]
"#;

/// What `init` writes, with TLS and [`RULES`], on a port that the system chooses.
pub fn deployment(authority: &Authority) -> Folder {
    let folder = Folder::new();
    init(folder.root()).map_err(|_| "init").unwrap();
    folder.let_laws_hold("policies/policy.toml");
    folder.edit("gateway.toml", "127.0.0.1:7400", "127.0.0.1:0");
    folder.edit("gateway.toml", "127.0.0.1:7401", "127.0.0.1:0");
    let config = folder.read("gateway.toml");
    let config: Vec<&str> =
        config.lines().filter(|line| !line.starts_with("plaintext") && !line.starts_with('#')).collect();
    folder.write("gateway.toml", config.join("\n"));
    folder.add("gateway.toml", TLS);
    folder.add("policies/policy.toml", RULES);
    put(&folder, &authority.gateway(|_| {}));
    folder.write("tls/ca.pem", authority.pem());
    folder
}

const TLS: &str = r#"
[tls]
certificate  = "tls/gateway.pem"
key          = "tls/gateway.key"
client_ca    = "tls/ca.pem"
trust_domain = "corp.example"
"#;

/// Puts the gateway's certificate in its place.
pub fn put(folder: &Folder, issued: &Issued) {
    folder.write("tls/gateway.pem", &issued.certificate);
    folder.write("tls/gateway.key", &issued.key);
    only_for_owner(&folder.path("tls/gateway.key"));
}

pub fn only_for_owner(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a client shows and believes, as files.
pub fn files(folder: &Folder, name: &str, shown: Option<&Issued>) -> trust::Files {
    let shown = shown.map(|issued| {
        let [certificate, key] = ["pem", "key"].map(|suffix| format!("clients/{name}.{suffix}"));
        folder.write(&certificate, &issued.certificate);
        folder.write(&key, &issued.key);
        (folder.path(&certificate), folder.path(&key))
    });
    trust::Files { ca: folder.path("tls/ca.pem"), shown }
}

/// A client that shows a certificate and believes the deployment's authority.
pub fn dialer(folder: &Folder, name: &str, shown: Option<&Issued>) -> Dialer {
    Dialer::verifying(trust::client(&files(folder, name, shown)).unwrap())
}

/// A client that shows what others would not even send. Whether it is let in: it gets the settings of HTTP/2.
pub async fn careless(folder: &Folder, address: SocketAddr, issued: &Issued) -> bool {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let shown = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).unwrap());
    let mut roots = RootCertStore::empty();
    trust::certificates(&folder.path("tls/ca.pem")).unwrap().into_iter().for_each(|root| roots.add(root).unwrap());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut client = builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    client.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let Ok(mut stream) = TlsConnector::from(Arc::new(client)).connect(name, stream).await else { return false };
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    if stream.write_all(hello).await.is_err() {
        return false;
    }
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).await.is_ok()
}
