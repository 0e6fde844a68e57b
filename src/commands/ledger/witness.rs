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

use crate::app::http::read;
use crate::clock::Clock;
use crate::ledger::cosignature::Cosigner;
use crate::ledger::note::Verifier;
use crate::ledger::witness::{Memory, Office, REQUEST_BYTES_MAX, Refusal};
use crate::ledger::{CHECKPOINT, Files, VERIFIER};
use crate::storage::{FileSystem, RealFileSystem, read_file, write_file_durably};

mod places;
mod seldom;

use places::{OF_ONE_ADDRESS_MAX, Place, Places};
use seldom::{Kind, Seldom};

/// What a witness is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// The directory with the witness's key and what it cosigned. Keep both together: without the one, the other could
    /// cosign two histories.
    #[arg(short, long, value_name = "DIR", default_value = "witness")]
    directory: PathBuf,
    /// Its name, for a new key, such as "witness.example.com/w1".
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The public key of a ledger that it cosigns, or its file `verifier`. Give this option once for each.
    #[arg(long = "ledger", value_name = "KEY|FILE", required = true)]
    ledgers: Vec<String>,
}

/// How long the head of a request may take, then its body, and a whole connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const BODY_WITHIN: Duration = Duration::from_secs(10);
const AGE_MAX: Duration = Duration::from_secs(60);
/// How long no connection is accepted when the system refuses one.
const PAUSE: Duration = Duration::from_millis(200);
/// The file of its secret key. It is beside what the key cosigned, so that neither is lost without the other.
const KEY: &str = "key";
/// The largest file with a key.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Cosigns until SIGTERM or SIGINT.
///
/// # Errors
/// When a key cannot be used, another process uses the directory, or the address is taken.
pub(super) async fn witness(options: Options) -> anyhow::Result<String> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let ledgers = options.ledgers.iter().map(|key| ledger(key)).collect::<anyhow::Result<Vec<_>>>()?;
    is_no_ledgers(&options.directory)?;
    let memory = Memory::open(Arc::clone(&fs), &options.directory)?;
    let cosigner = cosigner(&fs, &options.directory, options.name.as_deref())?;
    let key = cosigner.witness().to_string();
    let office = Office::open(cosigner, ledgers, memory);
    let desk = Arc::new(Desk { office, clock: Clock::start(), seldom: Seldom::default() });
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    tracing::info!(key, %address, "serving as a witness");
    tokio::select! {
        () = accept(listener, desk) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(String::new())
}

/// A key of a ledger, or that in a file.
fn ledger(key: &str) -> anyhow::Result<Verifier> {
    Verifier::parse(&super::text_of(key)?)
        .with_context(|| format!("`{key}` is no public key of a ledger, nor a file with one"))
}

/// A ledger's directory is not a witness's: the public key of the one would take the place of the other's.
fn is_no_ledgers(directory: &Path) -> anyhow::Result<()> {
    for part in [CHECKPOINT, "tile"] {
        if directory.join(part).exists() {
            bail!("{} is the directory of a ledger: give the witness one of its own with -d", directory.display());
        }
    }
    Ok(())
}

/// The key in a directory, beside its public key. Both are made if none of them is there.
fn cosigner(fs: &Arc<dyn FileSystem>, directory: &Path, name: Option<&str>) -> anyhow::Result<Cosigner> {
    let (path, files) = (directory.join(KEY), Files::new(Arc::clone(fs), directory));
    let public = files.text(VERIFIER)?;
    let Some(bytes) = read_file(&**fs, &path, KEY_BYTES_MAX)? else {
        if public.is_some() {
            let (path, directory) = (path.display(), directory.display());
            bail!(
                "{directory} has a public key, and the secret key {path} is not there: put it back, or name another -d"
            );
        }
        let Some(name) = name else {
            bail!("there is no key {}: name the witness with --name, and a key is made", path.display());
        };
        let cosigner = Cosigner::generate(name)?;
        write_file_durably(&**fs, &path, cosigner.secret().as_bytes())?;
        files.write_verifier(&cosigner.witness().to_string())?;
        return Ok(cosigner);
    };
    let cosigner = Cosigner::parse(&String::from_utf8_lossy(&bytes));
    let cosigner = cosigner.with_context(|| format!("{} is no secret key of a witness", path.display()))?;
    let key = cosigner.witness().to_string();
    match public {
        None => files.write_verifier(&key)?,
        Some(public) if public.trim() == key => {}
        Some(_) => bail!(
            "{} is not the public key of {}: move the one away that is not this witness's",
            directory.join(VERIFIER).display(),
            path.display()
        ),
    }
    Ok(cosigner)
}

/// What answers requests.
struct Desk {
    office: Office,
    clock: Clock,
    seldom: Seldom,
}

impl Desk {
    /// How many lines of a kind were left out before one that is logged now; `None`: it is left out.
    fn log(&self, kind: Kind) -> Option<u64> {
        self.seldom.log(kind, self.clock.now())
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let places = Places::new();
    loop {
        let Some(free) = places.free().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(place) = places.take(free, from.ip()) else {
                    if let Some(left_out) = desk.log(Kind::Crowded) {
                        let address = from.ip();
                        tracing::warn!(
                            %address,
                            left_out,
                            "a connection was closed: {OF_ONE_ADDRESS_MAX} others from its address are open"
                        );
                    }
                    continue;
                };
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(AGE_MAX, serve(stream, desk, place)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, desk: Arc<Desk>, place: Place) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let place = Arc::new(place);
    let service = service_fn(move |request: Request<Incoming>| {
        let (desk, place) = (Arc::clone(&desk), Arc::clone(&place));
        async move { Ok::<_, Infallible>(answer(request, desk, place).await) }
    });
    // Whoever breaks its connection off asks again.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, desk: Arc<Desk>, place: Arc<Place>) -> Response<String> {
    if request.uri().path() != "/add-checkpoint" {
        return told(StatusCode::NOT_FOUND, "there is only /add-checkpoint\n".to_owned());
    }
    if request.method() != Method::POST {
        return told(StatusCode::METHOD_NOT_ALLOWED, "POST a request of C2SP's tlog-witness\n".to_owned());
    }
    let body = match tokio::time::timeout(BODY_WITHIN, read(request.into_body(), REQUEST_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return told(StatusCode::BAD_REQUEST, format!("{}\n", Refusal::Malformed)),
        Err(_) => {
            let within = BODY_WITHIN.as_secs();
            return told(StatusCode::REQUEST_TIMEOUT, format!("the request did not come within {within} s\n"));
        }
    };
    let time = u64::try_from(desk.clock.wall() / 1_000_000).unwrap_or(0);
    let at_work = Arc::clone(&desk);
    let work = move || {
        // The work outlives its connection, and so must its place: it waits for the disk.
        let _place = place;
        at_work.office.add_checkpoint(&body, time)
    };
    match tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from).flatten() {
        Ok(Ok(line)) => told(StatusCode::OK, line),
        Ok(Err(refusal)) => {
            if let Some(left_out) = desk.log(Kind::Refused(std::mem::discriminant(&refusal))) {
                tracing::warn!(%refusal, left_out, "not cosigned");
            }
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
            if let Some(left_out) = desk.log(Kind::NotRemembered) {
                let error = format!("{error:#}");
                tracing::error!(error, left_out, "not cosigned: the witness cannot remember it");
            }
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
