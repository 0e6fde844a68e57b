//! `bailiwick send`: records from files or stdin to a gateway.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::wall_clock;
use crate::commands::json::add;
use crate::ingress::grpc::client::Dialer;

use super::Failure;

mod batches;
mod gunzip;
mod input;
mod line;
mod resume;
mod screen;
mod stream;
mod totals;

pub use batches::{Batch, Batches, Malformed, Records};
pub use input::{Format, Input};
pub use resume::{NotResumable, Token};
pub use stream::publish;
pub use totals::{Kind, Place, SharedTotals, Tally, Totals, snapshot};

pub(super) use totals::reason_name;

use screen::Screen;
use stream::Sending;

/// How records get to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// What connects to gateways.
    pub dialer: Dialer,
    /// The gateway's endpoint.
    pub endpoint: String,
    /// The stream.
    pub stream: String,
    /// The producer's name.
    pub producer: String,
    /// Whether records that belong elsewhere are sent to the gateway named in the refusal.
    pub follow: bool,
    /// The most records per request.
    pub batch: usize,
    /// Whether the input is all there is: windows need not wait for later records.
    pub complete: bool,
    /// The series of the requests' numbers.
    pub epoch: u64,
    /// How long a gateway may be away.
    pub patience: Duration,
}

#[cfg(test)]
impl Options {
    /// Those of a test.
    fn of_a_test(endpoint: &str) -> Self {
        Self {
            dialer: Dialer::default(),
            endpoint: endpoint.to_owned(),
            stream: "payments".to_owned(),
            producer: "till-7".to_owned(),
            follow: true,
            batch: 512,
            complete: false,
            epoch: 1,
            patience: Duration::ZERO,
        }
    }
}

/// What `bailiwick send` is told.
#[derive(Debug, Clone)]
pub struct Task {
    /// The files; none: stdin.
    pub files: Vec<PathBuf>,
    /// The format of all of them; `None`: their names say it.
    pub format: Option<Format>,
    /// How the records get to where. The epoch is that of a new send.
    pub options: Options,
    /// Whether `options.batch` was asked for, or may be that of the send that is resumed.
    pub is_batch_given: bool,
    /// The token of the send to resume.
    pub resume: Option<String>,
    /// Whether it is a success if records were refused.
    pub allow_refused: bool,
    /// Whether the summary is for programs.
    pub json: bool,
}

/// An input that is ready to be sent.
pub struct Ready {
    input: Input,
    /// The format and the sum of what was checked, if it can be read again.
    sum: Option<(Format, input::Sum)>,
}

impl From<Input> for Ready {
    fn from(input: Input) -> Self {
        Self { input, sum: None }
    }
}

/// Why a send ended before everything was sent and answered.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// No gateway answered, or none took anything in for as long as was waited, and nothing was sent.
    #[error("{0:#}")]
    NotBegun(anyhow::Error),
    /// A gateway went away. What was not answered can be sent again.
    #[error("{0:#}")]
    Gateway(anyhow::Error),
    /// Another sender goes by the same producer's name.
    #[error("{0:#}")]
    Superseded(anyhow::Error),
    /// The gateway does not want these records at all.
    #[error("{0:#}")]
    Unwanted(anyhow::Error),
    /// An input cannot be read on.
    #[error("{0:#}")]
    Input(anyhow::Error),
    /// An input is not what it was when it was looked at first.
    #[error("{0} changed while it was sent, so it is not known which of its records were sent")]
    Changed(String),
    /// A signal.
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
}

/// Sends files, or stdin when there are none. The summary for stdout.
///
/// # Errors
/// When an input cannot be read, the gateway goes away, or records were not taken in.
pub async fn send(task: Task) -> Result<String, Failure> {
    let screen = Screen::new();
    let (ready, token, options) = prepare(&task, &screen)?;
    let totals = SharedTotals::default();
    let interrupted = interrupted().context("cannot wait for signals")?;
    let shown = tokio::spawn(screen.clone().show(Arc::clone(&totals)));
    let sending = async {
        let sending = Sending::open(&options, &totals).await?;
        if let Some(token) = &token {
            screen.say(&format!("if this send is interrupted, resume it with `--resume {token}`"));
        }
        sending.run(ready).await
    };
    let ended = tokio::select! {
        ended = sending => ended,
        signal = interrupted => Err(Stopped::Interrupted(signal)),
    };
    shown.abort();
    let totals = screen.catch_up(&totals);
    screen.clear();
    // What follows is said of a send that can be resumed.
    let token = token.filter(|_| !matches!(&ended, Err(Stopped::Superseded(_) | Stopped::Changed(_))));
    if let Err(Stopped::NotBegun(error)) = ended {
        if let Some(token) = token.filter(|_| task.resume.is_some()) {
            screen.say(&format!("nothing more was sent; {}", to_resume(&token)));
        }
        return Err(Failure::Other(error));
    }
    if let Err(stopped) = &ended {
        let advice = advice(stopped, token.as_ref(), totals.read > 0);
        [Some(stopped.to_string()), advice].iter().flatten().for_each(|line| screen.say(line));
    }
    let summary = match task.json {
        true => json(&totals, token.as_ref(), ended.as_ref().err()),
        false => text(&totals, token.as_ref()),
    };
    match ended {
        Err(_) => Err(Failure::Found(summary)),
        Ok(()) if totals.all_taken_in(task.allow_refused) => Ok(summary),
        Ok(()) => Err(Failure::Partly(summary)),
    }
}

/// Reads what can be read twice once before anything is sent: what cannot be sent is found now, and what a token stands
/// for is known.
fn prepare(task: &Task, screen: &Screen) -> anyhow::Result<(Vec<Ready>, Option<Token>, Options)> {
    let resumed = task.resume.as_deref().map(str::parse::<Token>).transpose()?;
    let mut options = task.options.clone();
    if let Some(resumed) = &resumed {
        options.epoch = resumed.epoch;
        if !task.is_batch_given {
            options.batch = resumed.batch as usize;
        }
    }
    let files = if task.files.is_empty() { vec![PathBuf::from("-")] } else { task.files.clone() };
    let mut ready = Vec::new();
    for path in files {
        let input = Input::new(path, task.format);
        let sum = if input.is_repeatable()? {
            screen.reading(&input.name());
            let opened = input.open()?;
            let format = opened.format;
            let mut batches = Batches::new(opened, input.name().into(), 1)?;
            // The first record shows whether these are records at all.
            batches.next()?;
            Some((format, batches.skip()?))
        } else {
            None
        };
        ready.push(Ready { input, sum });
    }
    // One input that cannot be read again, and the send cannot be resumed.
    let sums: Option<Vec<_>> = ready.iter().map(|ready| ready.sum).collect();
    let token = sums.map(|sums| Token::new(options.epoch, &options, &sums));
    if let Some(resumed) = &resumed {
        token.as_ref().ok_or(NotResumable::Unrepeatable)?.resumes(resumed)?;
    }
    Ok((ready, token, options))
}

/// Hears SIGINT and SIGTERM from now on.
pub(super) fn interrupted() -> std::io::Result<impl Future<Output = &'static str>> {
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = int.recv() => "SIGINT",
            _ = term.recv() => "SIGTERM",
        }
    })
}

fn to_resume(token: &Token) -> String {
    format!("to send the rest without repeats, run the same command with `--resume {token}`")
}

/// What to do now, as far as it is true.
fn advice(stopped: &Stopped, token: Option<&Token>, has_read: bool) -> Option<String> {
    Some(match (stopped, token) {
        (Stopped::Gateway(_) | Stopped::Interrupted(_), Some(token)) => to_resume(token),
        (Stopped::Gateway(_) | Stopped::Interrupted(_), None) => {
            "stdin and pipes cannot be read again, so this send cannot be resumed: what was not answered may or may not \
             have been taken in"
                .to_owned()
        }
        (Stopped::Superseded(_), _) => {
            "another sender uses the name of this producer and began later, so this send cannot be resumed; give \
             each sender its own producer name"
                .to_owned()
        }
        (Stopped::Unwanted(_) | Stopped::NotBegun(_), _) => return None,
        (Stopped::Input(_), _) if !has_read => return None,
        (Stopped::Changed(_), _) => "this send cannot be resumed; send files that do not change meanwhile".to_owned(),
        (Stopped::Input(_), _) => {
            "everything before this was sent and answered; repair the rest and send it as a file of its own".to_owned()
        }
    })
}

fn text(totals: &Totals, token: Option<&Token>) -> String {
    let token = token.map(|token| format!("  resume token {token}\n"));
    format!("{}{}", totals.text(), token.unwrap_or_default())
}

fn json(totals: &Totals, token: Option<&Token>, stopped: Option<&Stopped>) -> String {
    let mut summary = totals.json();
    add(&mut summary, "resume", token.map(ToString::to_string));
    add(&mut summary, "error", stopped.map(ToString::to_string));
    ascii(&summary.to_string()) + "\n"
}

/// JSON in which every letter beyond ASCII is escaped, so that no terminal can be led astray by a name.
pub(super) fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if (' '..='~').contains(&char) {
            text.push(char);
        } else {
            let mut units = [0; 2];
            text.extend(char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// A number for a send that is greater than those before: the time, in microseconds.
#[must_use]
pub fn epoch_now() -> u64 {
    u64::try_from(wall_clock().as_microsecond()).unwrap_or(1)
}
