//! Asks witnesses to cosign the ledger's published checkpoint, again and again. What leaves does not wait for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{Request, StatusCode, header};
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::config::Witnessing;
use crate::ledger::note::{Checkpoint, Verifier};
use crate::ledger::witness;
use crate::ledger::{CHECKPOINT, Files, VERIFIER, proof};

use super::http::exchange;

/// How long a witness may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const BYTES_MAX: usize = 16 << 10;
/// So often a witness may say that it knows another size before it is given up for this time.
const ATTEMPTS: usize = 2;

/// The witnesses of a ledger.
pub(super) struct Witnesses {
    files: Files,
    every: Duration,
    asked: Vec<Asked>,
}

struct Asked {
    witness: Witnessing,
    /// Since when it has not cosigned, and why.
    away: Mutex<Option<Away>>,
}

/// Since when a witness has not cosigned what it was asked to.
#[derive(Debug, Clone)]
pub(super) struct Away {
    /// By the monotonic clock.
    pub(super) since: Duration,
    pub(super) why: String,
}

impl Witnesses {
    pub(super) fn new(files: Files, every: Duration, witnesses: Vec<Witnessing>) -> Self {
        let asked = witnesses.into_iter().map(|witness| Asked { witness, away: Mutex::default() });
        Self { files, every, asked: asked.collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.asked.len()
    }

    /// Those that do not cosign now, by name.
    pub(super) fn away(&self) -> Vec<(&str, Away)> {
        let away = self.asked.iter().filter_map(|asked| {
            let away = asked.away.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            Some((asked.witness.name.as_str(), away))
        });
        away.collect()
    }

    /// Asks them, for as long as the gateway runs.
    pub(super) async fn ask(self: Arc<Self>, clock: Clock) {
        let mut interval = tokio::time::interval(self.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let all = self.asked.iter().map(|asked| async {
                let outcome = tokio::time::timeout(WITHIN, self.one(&asked.witness, &clock)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", WITHIN.as_secs())));
                asked.heard(outcome, clock.now());
            });
            futures::future::join_all(all).await;
        }
    }

    /// Lets a witness cosign the published checkpoint, if it has not.
    async fn one(&self, witness: &Witnessing, clock: &Clock) -> anyhow::Result<()> {
        let (files, id) = (self.files.clone(), witness.key.id());
        let read = tokio::task::spawn_blocking(move || Published::read(&files, &id)).await?;
        let Some(Published { note, checkpoint, cosigned }) = read? else { return Ok(()) };
        if cosigned == checkpoint.size {
            return Ok(());
        }
        let mut old = cosigned;
        for attempt in 1.. {
            let files = self.files.clone();
            let (size, asked) = (checkpoint.size, old);
            let proof = tokio::task::spawn_blocking(move || proof::growth(&files, asked, size)).await??;
            let proof = proof.context("the ledger was published again meanwhile; it is asked again")?;
            let request = witness::Request { old, proof, checkpoint: note.clone() };
            let (code, says) = post(witness, request.encode()).await?;
            match code {
                StatusCode::OK => return self.keep(witness, &note, &says, clock).await,
                StatusCode::CONFLICT => {
                    let known: u64 = says.trim().parse().context("its answer is none of C2SP's tlog-witness")?;
                    if known > size || known == old || attempt == ATTEMPTS {
                        bail!(
                            "it has cosigned another ledger of this name, with {known} entries; this one has {size}: it was cut \
                             or rewritten, or there are two of one name"
                        );
                    }
                    old = known;
                }
                StatusCode::UNPROCESSABLE_ENTITY => bail!(
                    "what it has cosigned, {old} entries, is not the beginning of this ledger: it was rewritten, or there are \
                     two of one name"
                ),
                StatusCode::NOT_FOUND => bail!("it does not know the ledger: give it the file `{VERIFIER}`"),
                StatusCode::FORBIDDEN => bail!("it knows another key of the ledger: give it the file `{VERIFIER}`"),
                other => bail!("it answers {other}"),
            }
        }
        Ok(())
    }

    /// Keeps a checkpoint with its cosignature.
    async fn keep(&self, witness: &Witnessing, note: &str, says: &str, clock: &Clock) -> anyhow::Result<()> {
        let cosigned = format!("{note}{says}");
        let (time, line) = witness.key.cosigned(&cosigned).context("its answer is not a cosignature with its key")?;
        let ahead = i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(clock.wall() / 1_000_000);
        if ahead > CLOCKS_DIFFER_MAX {
            bail!("its clock is {ahead} s ahead of this one");
        }
        let (files, id, kept) = (self.files.clone(), witness.key.id(), format!("{note}{line}\n"));
        tokio::task::spawn_blocking(move || files.keep_cosigned(&id, &kept)).await??;
        Ok(())
    }
}

/// So many seconds the clock of a witness may be ahead.
const CLOCKS_DIFFER_MAX: i64 = 3_600;

impl Asked {
    fn heard(&self, outcome: anyhow::Result<()>, now: Duration) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let witness = &self.witness.name;
        match (outcome, &mut *away) {
            (Ok(()), None) => {}
            (Ok(()), Some(was)) => {
                let lasted = Duration::from_secs(now.saturating_sub(was.since).as_secs());
                tracing::info!(witness, ?lasted, "the witness cosigns the ledger again");
                *away = None;
            }
            (Err(error), Some(was)) => was.why = format!("{error:#}"),
            (Err(error), None) => {
                let why = format!("{error:#}");
                tracing::warn!(
                    witness,
                    error = why,
                    "the witness does not cosign the ledger; releases leave meanwhile"
                );
                *away = Some(Away { since: now, why });
            }
        }
    }
}

/// What is published, and how much of it a witness has cosigned.
struct Published {
    note: String,
    checkpoint: Checkpoint,
    cosigned: u64,
}

impl Published {
    /// `None`: nothing is.
    fn read(files: &Files, witness: &str) -> anyhow::Result<Option<Self>> {
        let Some((note, key)) = files.text(CHECKPOINT)?.zip(files.text(VERIFIER)?) else { return Ok(None) };
        let key = Verifier::parse(&key)?;
        let checkpoint = key.open(&note)?;
        let cosigned = files.cosigned(witness)?.and_then(|cosigned| key.open(&cosigned).ok());
        let cosigned = cosigned.map_or(0, |cosigned| cosigned.size).min(checkpoint.size);
        Ok(Some(Self { note, checkpoint, cosigned }))
    }
}

async fn post(witness: &Witnessing, body: String) -> anyhow::Result<(StatusCode, String)> {
    let Witnessing { authority, prefix, .. } = witness;
    let stream = TcpStream::connect(authority).await.with_context(|| format!("{authority} is not reached"))?;
    let request = Request::post(format!("{prefix}/add-checkpoint"))
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(body)?;
    exchange(stream, request, BYTES_MAX).await
}
