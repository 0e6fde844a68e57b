//! The thread that gives the ledger what closings say besides their releases: what was withheld, which override was used.
//! It is as durable as the releases: it waits in the outbox, and the outbox keeps it until the ledger says it on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::RecvTimeoutError;

use crate::domain::privacy;
use crate::domain::tally::{Cause, Told};
use crate::domain::time::rfc3339;
use crate::durable::outbox::{Closing, Note};
use crate::ledger::Closed;
use crate::ledger::entry::{Paid, What};
use crate::storage::{Lsn, ReadError, Reader};

use super::Context;
use super::runner::{Ends, PAUSE, TICK};

/// So many notes go to the ledger together, or some more.
const NOTES_TOGETHER: usize = 1_000;

/// Gives the ledger what the outbox holds until the thread is told to end. `noted` is the position through which it has.
pub(super) fn run(context: &Context, noted: &Arc<AtomicU64>, ends: &Ends) {
    let (outbox, mut through) = (&context.outbox, 0);
    let mut reader = outbox.reader(through + 1);
    loop {
        let said = read(&mut reader, through).map_err(anyhow::Error::from).and_then(|(closings, last)| {
            if !closings.is_empty() {
                context.ledger.closed(&closings)?;
            }
            Ok(last)
        });
        match said {
            Ok(last) if last > through => {
                through = last;
                noted.store(through, Ordering::Release);
            }
            Ok(_) if ends.is_draining() || ends.is_cut() => return,
            Ok(_) => {
                let _ = outbox.wait_beyond(through, TICK);
            }
            // What it could not say it says after the next start.
            Err(_) if ends.is_draining() => return,
            Err(error) => {
                tracing::debug!(%error, "the ledger does not say yet what closings say");
                if ends.cut.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
                reader = outbox.reader(through + 1);
            }
        }
    }
}

/// What the next closings say, as far as there are some; through which position that is.
fn read(reader: &mut Reader, mut through: Lsn) -> Result<(Vec<Closed>, Lsn), ReadError> {
    let (mut closings, mut notes) = (Vec::new(), 0);
    while notes < NOTES_TOGETHER
        && let Some(entry) = reader.next()?
    {
        through = entry.lsn;
        // The threads of the destinations say that an entry cannot be read.
        let Some(closing) = Closing::decode(&entry.payload) else { continue };
        if closing.notes.is_empty() {
            continue;
        }
        notes += closing.notes.len();
        closings.push(Closed { outbox: entry.lsn, notes: said(&closing, entry.lsn) });
    }
    Ok((closings, through))
}

fn said(closing: &Closing, outbox: Lsn) -> Vec<What> {
    let (dataset, at, outbox) = (&closing.dataset, outbox, Some(outbox));
    let notes = closing.notes.iter().map(|note| match note {
        Note::Withheld { window_start, at_least } => What::Withheld {
            dataset: dataset.to_string(),
            window_start: rfc3339(*window_start),
            at_least: *at_least,
            outbox,
        },
        Note::Override { id, destination, window_start } => What::Override {
            id: id.clone(),
            dataset: dataset.to_string(),
            destination: destination.to_string(),
            window_start: rfc3339(*window_start),
            outbox,
        },
        Note::Refused { stream, before, told: Told { cause: Cause { reason, rules, to }, records } } => What::Refused {
            stream: stream.to_string(),
            closed_before: before.map(rfc3339),
            reason: reason.name().to_owned(),
            rules: rules.as_deref().unwrap_or_default().to_vec(),
            to: to.as_ref().map(ToString::to_string),
            records: *records,
            outbox: at,
        },
        Note::Privacy { window_start, outcome, rho } => What::Privacy {
            dataset: dataset.to_string(),
            window_start: rfc3339(*window_start),
            outcome: match outcome {
                privacy::Paid::Noised => Paid::Noised,
                privacy::Paid::Spent => Paid::Spent,
                privacy::Paid::Lost => Paid::Lost,
            },
            rho_billionths: rho.billionths(),
            outbox: at,
        },
    });
    notes.collect()
}
