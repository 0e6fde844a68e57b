//! `[destinations.NAME]`: where releases go.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use jiff::SignedDuration;

use crate::domain::document::{Place, Problems, Spot, Table, hint};
use crate::domain::name::DatasetName;
use crate::domain::policy::PolicySet;
use crate::egress::encode::Format;
use crate::egress::file;
use crate::files;

use super::Destination;
use super::brokers::{self, FilePlaces};

/// Reads one. `gateway` is the gateway's id.
pub(super) fn read(table: &Table<'_>, base: &Path, gateway: Option<&str>) -> Option<(Destination, FilePlaces)> {
    let kind = table.need::<String>("kind")?;
    let format = table.get::<String>("format").map_or(Some(Format::JsonLines), |format| {
        let known = Format::NAMES.iter().find(|(name, _)| *name == format.value);
        if known.is_none() {
            let names = Format::NAMES.map(|(name, _)| name);
            table.problems().error_help(
                &format.place,
                format!("there is no format `{}`", format.value),
                hint(&format.value, &names),
            );
        }
        let known = known.map(|(_, format)| *format);
        let (fits, others): (fn(Format) -> bool, _) = match kind.value.as_str() {
            "file" => (Format::is_for_files, "messages; files are"),
            "kafka" => (Format::is_for_messages, "files; messages are"),
            _ => (|_| true, ""),
        };
        if known.is_some_and(|format| !fits(format)) {
            let fitting = Format::NAMES.iter().filter(|(_, format)| fits(*format)).map(|(name, _)| format!("`{name}`"));
            let message = format!("`{}` is for {others} {}", format.value, fitting.collect::<Vec<_>>().join(", "));
            table.problems().error(&format.place, message);
            return None;
        }
        known
    });
    match kind.value.as_str() {
        "file" => read_file(table, base, format).map(|settings| (Destination::File(settings), FilePlaces::new())),
        "kafka" => {
            let (settings, files) = brokers::read(table, base, format, gateway)?;
            Some((Destination::Kafka(settings), files))
        }
        other => {
            let message = format!("there is no destination kind `{other}`");
            table.problems().error_help(&kind.place, message, hint(other, &["file", "kafka"]));
            None
        }
    }
}

/// What `when_denied` may say.
pub(super) const WHEN_DENIED: [&str; 2] = ["wait", "shed"];

/// Whether a release is shed that may not go to the destination any more when it is its turn.
pub(super) fn sheds_denied(table: &Table<'_>) -> Option<Place> {
    let said = table.get::<String>("when_denied")?;
    if !WHEN_DENIED.contains(&said.value.as_str()) {
        let message = format!("`when_denied` cannot be `{}`", said.value);
        table.problems().error_help(&said.place, message, hint(&said.value, &WHEN_DENIED));
    }
    (said.value == "shed").then_some(said.place)
}

/// What tells only what has changed is not shed: what is told after it would be taken for all that has.
pub(super) fn check_sheds_denied(declared: &BTreeMap<String, Place>, policy: &PolicySet, problems: &Problems) {
    for (name, place) in declared {
        let Some(destination) = policy.destinations.get(name.as_str()) else { continue };
        let tells_changes = |dataset: &&Spot<DatasetName>| {
            policy.dataset(&dataset.value).is_some_and(|(_, dataset)| dataset.only_on_change)
        };
        for dataset in destination.accepts.iter().filter(tells_changes) {
            let message = format!(
                "`{}` tells only what has changed (`only_on_change`): of a release that is shed, destination `{name}` would never \
                 hear",
                dataset.value
            );
            problems.error_help(place, message, "remove `when_denied`, or `only_on_change` of the dataset");
        }
    }
}

fn read_file(table: &Table<'_>, base: &Path, format: Option<Format>) -> Option<file::Settings> {
    let directory = table.need::<String>("directory");
    let rotate_bytes = table.get::<usize>("rotate_bytes").map_or(8 << 20, |bytes| {
        if !ROTATE_BYTES.contains(&bytes.value) {
            let (least, most) = ROTATE_BYTES.into_inner();
            let message = format!("`rotate_bytes` is {}, and must be {least} to {most}", bytes.value);
            table.problems().error_help(&bytes.place, message, "a file is made in memory, with all that it will hold");
        }
        bytes.value
    });
    let rotate_after = table.or("rotate_after", SignedDuration::from_secs(60)).unsigned_abs();
    let mode = table.get::<String>("mode").map_or(file::MODE, |mode| read_mode(&mode, table.problems()));
    let group = table.get::<String>("group").and_then(|group| read_group(&group, table.problems()));
    let directory = base.join(directory?.value);
    Some(file::Settings { directory, format: format?, rotate_bytes, rotate_after, mode, group })
}

/// What `rotate_bytes` may be.
const ROTATE_BYTES: RangeInclusive<usize> = 1..=256 << 20;

/// The bits of a mode: who may read and write, no more.
const MODE_BITS: u32 = 0o666;
/// Whoever writes a file must be able to.
const MODE_OWNER: u32 = 0o600;

fn read_mode(mode: &Spot<String>, problems: &Problems) -> u32 {
    let bits = u32::from_str_radix(&mode.value, 8).ok().filter(|_| mode.value.len() >= 3);
    match bits {
        Some(bits) if bits & !MODE_BITS == 0 && bits & MODE_OWNER == MODE_OWNER => bits,
        _ => {
            let message = format!("`{}` is no mode of a file that its owner reads and writes", mode.value);
            problems.error_help(&mode.place, message, "write it in octal, such as \"0640\", without execute bits");
            file::MODE
        }
    }
}

/// Where the system's groups are, and how large that may be.
const GROUPS: &str = "/etc/group";
const GROUPS_BYTES_MAX: u64 = 1 << 20;

fn read_group(group: &Spot<String>, problems: &Problems) -> Option<u32> {
    if let Ok(number) = group.value.parse::<u32>() {
        return Some(number);
    }
    let groups = files::read(Path::new(GROUPS), GROUPS_BYTES_MAX).map(|(bytes, _)| bytes).unwrap_or_default();
    let found = group_number(&String::from_utf8_lossy(&groups), &group.value);
    if found.is_none() {
        let message = format!("there is no group `{}` in {GROUPS}", group.value);
        problems.error_help(&group.place, message, "name a group that exists here, or give its number");
    }
    found
}

/// The number of a group in the text of `/etc/group`.
fn group_number(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

/// Two destinations in one topic: a consumer cannot tell what went to which, and gets a release of both twice.
pub(super) fn warn_of_shared_topics(destinations: &BTreeMap<String, Spot<Destination>>, problems: &Problems) {
    let mut topics: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, destination) in destinations {
        let Destination::Kafka(settings) = &destination.value else { continue };
        if let Some(other) = topics.insert((&settings.brokers, &settings.topic), name) {
            let topic = &settings.topic;
            problems.warn(
                &destination.place,
                format!("destinations `{other}` and `{name}` send to the same topic `{topic}`"),
                "a release to both is in the topic twice, with the same `ce_id`: give each destination its own topic",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_names() {
        let groups = "root:x:0:\nadm:x:4:syslog,a\nbroken\nreaders:x:1007:b\n";
        assert_eq!(group_number(groups, "readers"), Some(1_007));
        assert_eq!(group_number(groups, "adm"), Some(4));
        assert_eq!((group_number(groups, "broken"), group_number(groups, "syslog")), (None, None));
    }
}
