//! `bailiwick ledger witness`: cosigns the checkpoints of ledgers, over HTTP, as C2SP's tlog-witness.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::app::http::read;
use crate::clock::wall_clock;
use crate::ledger::Files;
use crate::ledger::cosignature::Cosigner;
use crate::ledger::note::Verifier;
use crate::ledger::witness::{Office, REQUEST_BYTES_MAX, Refusal};
use crate::storage::{FileSystem, RealFileSystem, create_directories, read_file, write_file_durably};

/// What a witness is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// The directory in which the witness remembers what it cosigned. Keep it: without it, it could cosign two histories.
    #[arg(short, long, value_name = "DIR", default_value = "witness")]
    directory: PathBuf,
    /// The file of its secret key, made if it is not there [default: `key` in the directory]
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Its name, for a new key, such as "witness.example.com/w1".
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The public key of a ledger that it cosigns, or its file `verifier`. Give this option once for each.
    #[arg(long = "ledger", value_name = "KEY|FILE", required = true)]
    ledgers: Vec<String>,
}

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, and then a whole connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const AGE_MAX: Duration = Duration::from_secs(60);
/// How long no connection is accepted when the system refuses one.
const PAUSE: Duration = Duration::from_millis(200);
/// The largest file with a key.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Cosigns until SIGTERM or SIGINT.
///
/// # Errors
/// When a key cannot be used, what it remembers is damaged, or the address is taken.
pub(super) async fn witness(options: Options) -> anyhow::Result<String> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let ledgers = options.ledgers.iter().map(|key| ledger(key)).collect::<anyhow::Result<Vec<_>>>()?;
    let secret = options.secret.unwrap_or_else(|| options.directory.join("key"));
    create_directories(&*fs, &options.directory)?;
    let cosigner = cosigner(&*fs, &secret, options.name.as_deref())?;
    let key = cosigner.witness().to_string();
    Files::new(Arc::clone(&fs), &options.directory).write_verifier(&key)?;
    let office = Arc::new(Office::open(cosigner, ledgers, fs, &options.directory)?);
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    tracing::info!(key, %address, "serving as a witness");
    tokio::select! {
        () = accept(listener, office) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(String::new())
}

/// A key of a ledger, or that in a file.
fn ledger(key: &str) -> anyhow::Result<Verifier> {
    let text = if Path::new(key).is_file() {
        std::fs::read_to_string(key).with_context(|| format!("cannot read {key}"))?
    } else {
        key.to_owned()
    };
    Verifier::parse(&text).with_context(|| format!("`{key}` is no public key of a ledger, nor a file with one"))
}

fn cosigner(fs: &dyn FileSystem, path: &Path, name: Option<&str>) -> anyhow::Result<Cosigner> {
    if let Some(bytes) = read_file(fs, path, KEY_BYTES_MAX)? {
        let key = Cosigner::parse(&String::from_utf8_lossy(&bytes));
        return key.with_context(|| format!("{} is no secret key of a witness", path.display()));
    }
    let Some(name) = name else {
        bail!("there is no key {}: name the witness with --name, and a key is made", path.display());
    };
    let cosigner = Cosigner::generate(name)?;
    write_file_durably(fs, path, cosigner.secret().as_bytes())?;
    Ok(cosigner)
}

async fn accept(listener: TcpListener, office: Arc<Office>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let office = Arc::clone(&office);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(AGE_MAX, serve(stream, office)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, office: Arc<Office>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let service = service_fn(move |request: Request<Incoming>| {
        let office = Arc::clone(&office);
        async move { Ok::<_, Infallible>(answer(request, office).await) }
    });
    // Whoever breaks its connection off asks again.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, office: Arc<Office>) -> Response<String> {
    if request.uri().path() != "/add-checkpoint" {
        return told(StatusCode::NOT_FOUND, "there is only /add-checkpoint\n".to_owned());
    }
    if request.method() != Method::POST {
        return told(StatusCode::METHOD_NOT_ALLOWED, "POST a request of C2SP's tlog-witness\n".to_owned());
    }
    let Ok(body) = read(request.into_body(), REQUEST_BYTES_MAX).await else {
        return told(StatusCode::BAD_REQUEST, format!("{}\n", Refusal::Malformed));
    };
    let time = u64::try_from(wall_clock().as_second()).unwrap_or(0);
    // It waits for the disk.
    let cosigned = tokio::task::spawn_blocking(move || office.add_checkpoint(&body, time)).await;
    match cosigned.map_err(anyhow::Error::from).flatten() {
        Ok(Ok(line)) => told(StatusCode::OK, line),
        Ok(Err(refusal)) => {
            tracing::warn!(%refusal, "not cosigned");
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            match refusal.size() {
                Some(size) => {
                    let mut response = told(status, format!("{size}\n"));
                    response.headers_mut().insert(CONTENT_TYPE, SIZE);
                    response
                }
                None => told(status, format!("{refusal}\n")),
            }
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "not cosigned: the witness cannot remember it");
            told(StatusCode::INTERNAL_SERVER_ERROR, "the witness cannot remember it now\n".to_owned())
        }
    }
}

/// What a conflict's body is.
const SIZE: http::HeaderValue = http::HeaderValue::from_static("text/x.tlog.size");

fn told(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
