//! Whether a ledger is what was signed, and who has cosigned it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use crate::commands::{Failure, json};
use crate::domain::time::rfc3339;
use crate::ledger::audit::{Audit, Bad};
use crate::ledger::cosignature::Witness;
use crate::ledger::entry::Entry;
use crate::ledger::note::Checkpoint;

use super::{Named, Opened, text_of};

/// How many entries there are of each kind.
#[derive(Default)]
pub(super) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn hear(&mut self, entry: Option<&Entry>) {
        if let Some(entry) = entry {
            *self.0.entry(entry.what.kind()).or_default() += 1;
        }
    }
}

/// The witnesses that must have cosigned a ledger.
pub(super) struct Wanting {
    /// Each is there once.
    pub(super) witnesses: Vec<Witness>,
    /// How many of them must have.
    pub(super) at_least: usize,
}

/// What a witness has cosigned.
pub(super) struct Witnessed {
    name: String,
    /// How many entries, and when it did last. `None`: nothing.
    last: Option<(u64, String)>,
}

/// The witnesses of keys or their files, each once: who has one key counts once, under whatever names.
pub(super) fn distinct(keys: &[String]) -> anyhow::Result<Vec<Witness>> {
    let mut witnesses: Vec<Witness> = Vec::new();
    for key in keys {
        let witness = Witness::parse(&text_of(key)?).context("the public key of a witness cannot be used")?;
        if !witnesses.iter().any(|other| other.has_key_of(&witness)) {
            witnesses.push(witness);
        }
    }
    Ok(witnesses)
}

impl Wanting {
    /// What each witness has cosigned of a ledger, and the checkpoints.
    fn look(&self, opened: &Opened<'_>) -> anyhow::Result<(Vec<Witnessed>, Vec<Checkpoint>)> {
        let (mut all, mut kept) = (Vec::new(), Vec::new());
        for witness in &self.witnesses {
            let note = opened.files.cosigned(&witness.id())?.unwrap_or_default();
            let checkpoint = opened.verifier.open(&note).ok().zip(witness.cosigned(&note));
            // Whoever cosigned no entry vouches for nothing.
            let checkpoint = checkpoint.filter(|(checkpoint, _)| checkpoint.size > 0);
            let last = checkpoint.map(|(checkpoint, (time, _))| {
                let entries = checkpoint.size;
                kept.push(checkpoint);
                (entries, rfc3339(i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000_000)))
            });
            all.push(Witnessed { name: witness.name().to_owned(), last });
        }
        Ok((all, kept))
    }
}

/// Verifies a ledger. The report.
pub(super) fn verify(named: &Named, checkpoints: &[PathBuf], wanting: &Wanting, json: bool) -> Result<String, Failure> {
    let opened = named.open()?;
    let mut kept = checkpoints.iter().map(|path| opened.kept(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let (witnessed, cosigned) = wanting.look(&opened)?;
    kept.extend(cosigned);
    let (mut found, counts) = opened.audit(&kept, Counts::default, |counts, _, _, entry| counts.hear(entry))?;
    let have = witnessed.iter().filter(|witnessed| witnessed.last.is_some()).count();
    if have < wanting.at_least {
        let what = format!("{have} witnesses have cosigned it, and {} must have", wanting.at_least);
        found.bad.push(Bad { entry: None, what });
    }
    let report = match json {
        true => in_json(&opened, &found, &counts, &witnessed),
        false => in_words(&opened, &found, &counts, &witnessed),
    };
    if found.bad.is_empty() { Ok(report) } else { Err(Failure::Found(report)) }
}

fn in_json(opened: &Opened<'_>, found: &Audit, counts: &Counts, witnessed: &[Witnessed]) -> String {
    let bad = found.bad.iter().map(|bad| json!({ "entry": bad.entry, "what": bad.what }));
    let witnessed = witnessed.iter().map(|Witnessed { name, last }| {
        let (entries, time) = last.as_ref().map(|(entries, time)| (entries, time)).unzip();
        json!({ "witness": name, "entries": entries, "time": time })
    });
    json::print(&json!({
        "directory": opened.named.directory.display().to_string(),
        "name": opened.verifier.name(),
        "key": opened.verifier.to_string(),
        "is_sound": found.bad.is_empty(),
        "entries": found.entries,
        "in_tiles": found.published,
        "kinds": counts.0,
        "checkpoint": found.checkpoint,
        "witnesses": witnessed.collect::<Vec<_>>(),
        "clock_went_back": found.clock_went_back,
        "of_later_versions": found.newer,
        "bad": bad.collect::<Vec<_>>(),
    }))
}

/// What was found of a ledger, for people.
pub(super) fn in_words(opened: &Opened<'_>, found: &Audit, counts: &Counts, witnessed: &[Witnessed]) -> String {
    let mut text = String::new();
    let directory = opened.named.directory.display();
    let _ = writeln!(text, "ledger `{}` in {directory}", opened.verifier.name());
    if opened.named.key.is_none() {
        let _ = writeln!(
            text,
            "  key, from the ledger itself; compare it with the one you were given: {}",
            opened.verifier
        );
    }
    let _ = writeln!(text, "  entries: {}, of which {} are in tiles", found.entries, found.published);
    for (kind, entries) in &counts.0 {
        let _ = writeln!(text, "    {kind}: {entries}");
    }
    for Witnessed { name, last } in witnessed {
        let _ = match last {
            Some((entries, time)) => {
                writeln!(text, "  witness `{name}` cosigned the first {entries} entries at {time}")
            }
            None => writeln!(text, "  witness `{name}` has not cosigned it"),
        };
    }
    if found.clock_went_back > 0 {
        let _ = writeln!(text, "  the clock went back {} times", found.clock_went_back);
    }
    if found.newer > 0 {
        let newer = found.newer;
        let _ = writeln!(
            text,
            "  {newer} entries are of a later version: they are signed, and say nothing to this program"
        );
    }
    for bad in &found.bad {
        let _ = writeln!(text, "  BAD {bad}");
    }
    if found.bad.is_empty() {
        text.push_str("  all is as it was signed\n");
    }
    text
}
