//! Asks witnesses to cosign the ledger's published checkpoint, again and again. What leaves does not wait for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{Request, StatusCode, header};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

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
    /// Whoever uses the disk for this witness: one at a time, so that a disk that hangs holds one thread and no more.
    disk: Arc<Semaphore>,
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
        let asked = witnesses.into_iter().map(Asked::new);
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
                let outcome = tokio::time::timeout(WITHIN, self.one(asked, &clock)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", WITHIN.as_secs())));
                asked.heard(outcome, clock.now());
            });
            futures::future::join_all(all).await;
        }
    }

    /// Lets a witness cosign the published checkpoint, if it has not.
    async fn one(&self, asked: &Asked, clock: &Clock) -> anyhow::Result<()> {
        let (witness, files, id) = (&asked.witness, self.files.clone(), asked.witness.key.id());
        let published = asked.on_disk(move || Published::read(&files, &id)).await?;
        let Some(Published { note, checkpoint, cosigned }) = published else { return Ok(()) };
        if is_cosigned(&checkpoint, cosigned.as_ref())? {
            return Ok(());
        }
        let cosigned = cosigned.map_or(0, |cosigned| cosigned.size);
        let mut old = cosigned;
        for attempt in 1.. {
            let files = self.files.clone();
            let (size, since) = (checkpoint.size, old);
            let proof = asked.on_disk(move || Ok(proof::growth(&files, since, size)?)).await?;
            let proof = proof.context("the ledger was published again meanwhile; it is asked again")?;
            let request = witness::Request { old, proof, checkpoint: note.clone() };
            let (code, says) = post(witness, request.encode()).await?;
            match code {
                StatusCode::OK => return self.keep(asked, &note, &says, clock).await,
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
    async fn keep(&self, asked: &Asked, note: &str, says: &str, clock: &Clock) -> anyhow::Result<()> {
        let (witness, cosigned) = (&asked.witness, format!("{note}{says}"));
        let (time, line) = witness.key.cosigned(&cosigned).context("its answer is not a cosignature with its key")?;
        let ahead = i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(clock.wall() / 1_000_000);
        if ahead > CLOCKS_DIFFER_MAX {
            bail!("its clock is {ahead} s ahead of this one");
        }
        let (files, id, kept) = (self.files.clone(), witness.key.id(), format!("{note}{line}\n"));
        asked.on_disk(move || Ok(files.keep_cosigned(&id, &kept)?)).await
    }
}

/// So many seconds the clock of a witness may be ahead.
const CLOCKS_DIFFER_MAX: i64 = 3_600;

impl Asked {
    fn new(witness: Witnessing) -> Self {
        Self { witness, disk: Arc::new(Semaphore::new(1)), away: Mutex::default() }
    }

    /// Does what waits for the disk, unless what was begun earlier still waits for it.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let turn = Arc::clone(&self.disk).try_acquire_owned();
        let turn = turn.context("the disk with the ledger hangs: it is asked again when the disk answers")?;
        let work = move || {
            // The work outlives whoever waits for it, and so must its turn.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await?
    }

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

/// What is published, and what of it a witness has cosigned last.
struct Published {
    note: String,
    checkpoint: Checkpoint,
    cosigned: Option<Checkpoint>,
}

impl Published {
    /// `None`: nothing is.
    fn read(files: &Files, witness: &str) -> anyhow::Result<Option<Self>> {
        // What was cosigned is read first: so it is never of a later time than what is published.
        let cosigned = files.cosigned(witness)?;
        let Some((note, key)) = files.text(CHECKPOINT)?.zip(files.text(VERIFIER)?) else { return Ok(None) };
        let key = Verifier::parse(&key)?;
        let checkpoint = key.open(&note)?;
        let cosigned = cosigned.and_then(|cosigned| key.open(&cosigned).ok());
        Ok(Some(Self { note, checkpoint, cosigned }))
    }
}

/// Whether a published checkpoint is what was cosigned last.
///
/// # Errors
/// When what was cosigned cannot be the beginning of what is published.
fn is_cosigned(published: &Checkpoint, cosigned: Option<&Checkpoint>) -> anyhow::Result<bool> {
    let Some(cosigned) = cosigned else { return Ok(false) };
    let (size, had) = (published.size, cosigned.size);
    if had > size {
        bail!("it has cosigned {had} entries of this ledger, which has {size} now: the ledger was cut");
    }
    if had == size && cosigned.root != published.root {
        bail!("it has cosigned {size} other entries of this ledger: the ledger was rewritten");
    }
    Ok(had == size)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(size: u64, root: u8) -> Checkpoint {
        Checkpoint { origin: "a".to_owned(), size, root: [root; 32] }
    }

    #[test]
    fn a_ledger_that_was_cut_or_rewritten_is_not_taken_as_cosigned() {
        let published = checkpoint(7, 1);
        let look = |cosigned: Option<Checkpoint>| is_cosigned(&published, cosigned.as_ref());
        assert!(look(Some(checkpoint(7, 1))).unwrap());
        assert!(!look(Some(checkpoint(6, 2))).unwrap() && !look(None).unwrap());
        assert!(look(Some(checkpoint(8, 2))).unwrap_err().to_string().contains("has 7 now: the ledger was cut"));
        assert!(look(Some(checkpoint(7, 2))).unwrap_err().to_string().contains("the ledger was rewritten"));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_one_thread_of_a_witness() {
        let key = crate::ledger::cosignature::Cosigner::generate("w.example.org").unwrap().witness().clone();
        let witness =
            Witnessing { name: "w".to_owned(), key, authority: "127.0.0.1:1".to_owned(), prefix: String::new() };
        let asked = Arc::new(Asked::new(witness));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        // Nobody waits for it any more, and it goes on.
        let hanging = tokio::spawn({
            let asked = Arc::clone(&asked);
            let work = move || {
                begun.send(())?;
                Ok(ends.recv()?)
            };
            async move { asked.on_disk(work).await }
        });
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        hanging.abort();
        let refused = asked.on_disk(|| Ok(())).await.unwrap_err();
        assert!(refused.to_string().contains("the disk with the ledger hangs"), "{refused}");
        end.send(()).unwrap();
        while asked.on_disk(|| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
