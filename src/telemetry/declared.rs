//! Every metric, declared once: its name, what it says, its unit and its labels. `/metrics`, docs/metrics.md, the log's
//! summaries and `demo` go by these declarations.
//!
//! A label's values are names of the configuration or of closed lists, and are there from the start. Nothing that a record
//! or a producer says becomes a label.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process runs.
    Counter,
    /// A counter of what may be in a cell: it is shown in steps ([`super::Steps`]), so that nobody learns from it how many
    /// records a small cell has.
    Steps,
    /// Goes up and down.
    Gauge,
    /// How often something took how long. It is shown in steps, as [`Kind::Steps`].
    Histogram,
}

/// What a metric's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// Its name, without unit and `_total`.
    pub name: &'static str,
    /// What it says, in sentences.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What its numbers count.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

impl Declaration {
    /// What it says, as one line.
    #[must_use]
    pub fn says(&self) -> &'static str {
        self.help.trim()
    }

    /// The name that queries use; that of a histogram is followed by `_bucket`, `_sum` or `_count`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let unit = match self.unit {
            Unit::None => "",
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
        };
        let total = if matches!(self.kind, Kind::Counter | Kind::Steps) { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }
}

macro_rules! declare {
    ($($(#[doc = $help:literal])+ $constant:ident = $kind:ident $name:literal $unit:ident [$($label:literal),*];)+) => {
        $(
            $(#[doc = $help])+
            pub const $constant: Declaration = Declaration {
                name: $name,
                help: concat!($($help),+),
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
            };
        )+

        /// All of them, in the order of docs/metrics.md.
        pub const ALL: &[Declaration] = &[$($constant),+];
    };
}

declare! {
    /// Requests received, whatever became of them.
    REQUESTS_IN = Steps "bailiwick_requests_in" None ["stream"];
    /// Bytes of payload received.
    PAYLOAD_IN = Steps "bailiwick_payload_in" Bytes ["stream"];
    /// Bytes of payload of the records taken in. Of a request of which records were refused, the share of the others by number.
    PAYLOAD_ACCEPTED = Steps "bailiwick_payload_accepted" Bytes ["stream"];
    /// Records taken in: they are on disk.
    RECORDS_ACCEPTED = Steps "bailiwick_records_accepted" None ["stream"];
    /// Records refused, by reason. A request that was refused as a whole counts once.
    RECORDS_REFUSED = Counter "bailiwick_records_refused" None ["stream", "reason"];
    /// Records refused because they belong to a peer, by the peer that the refusal names.
    RECORDS_REDIRECTED = Counter "bailiwick_records_redirected" None ["peer"];
    /// Records taken in after their window had closed. They count in the oldest open window.
    RECORDS_LATE = Steps "bailiwick_records_late" None ["stream"];
    /// Records that a model scored.
    RECORDS_SCORED = Steps "bailiwick_records_scored" None ["stream"];
    /// Requests that were durable already.
    REQUESTS_REPEATED = Counter "bailiwick_requests_repeated" None ["stream"];
    /// Values of undeclared fields that were dropped.
    VALUES_DROPPED = Steps "bailiwick_values_dropped" None ["stream"];
    /// Records put into quarantine.
    RECORDS_QUARANTINED = Steps "bailiwick_records_quarantined" None [];
    /// Records that were taken in from quarantine when more was known.
    QUARANTINE_RELEASED = Steps "bailiwick_quarantine_released" None [];
    /// Records that were discarded from quarantine.
    QUARANTINE_EXPIRED = Steps "bailiwick_quarantine_expired" None [];
    /// Records that the journal held at the start under a key that was not there any more.
    RECORDS_ERASED = Steps "bailiwick_records_erased" None [];
    /// Records that the policies in the shadow would let stay, and the ones in force do not.
    SHADOW_NEWLY_ALLOWED = Steps "bailiwick_shadow_newly_allowed" None [];
    /// Records that the policies in the shadow would not let stay, and the ones in force do.
    SHADOW_NEWLY_DENIED = Steps "bailiwick_shadow_newly_denied" None [];

    /// How long a batch takes at each stage: `wait` (the oldest of its requests waits for the worker), `judge` (decoded, decided,
    /// scored), `place` (written, ordered, counted), `journal` (until it is on disk).
    BATCH_STAGE = Histogram "bailiwick_batch_stage" Seconds ["stage"];
    /// How long requests take, from when the oldest one of their batch has arrived at a worker until they are answered.
    ANSWER = Histogram "bailiwick_answer" Seconds [];
    /// How long a run of a stream's model takes.
    MODEL_RUN = Histogram "bailiwick_model_run" Seconds ["stream"];

    /// Cells that left, remainders included.
    CELLS_RELEASED = Counter "bailiwick_cells_released" None ["dataset"];
    /// Remainders that left: cells with too few contributors, together. They count among the cells that left.
    REMAINDERS_RELEASED = Counter "bailiwick_remainders_released" None ["dataset"];
    /// Cells that may leave and were not told again, since they say what they said before.
    CELLS_UNCHANGED = Counter "bailiwick_cells_unchanged" None ["dataset"];
    /// Cells with too few contributors: they did not leave. One that waited for the next windows counts when it is dropped.
    CELLS_WITHHELD = Steps "bailiwick_cells_withheld" None ["dataset"];
    /// Cells with too few contributors that began to wait for the next windows of the same key.
    CELLS_DEFERRED = Steps "bailiwick_cells_deferred" None ["dataset"];
    /// Cells that waited for the next windows and did not leave with one. They count among the withheld ones.
    CELLS_DEFERRED_DROPPED = Steps "bailiwick_cells_deferred_dropped" None ["dataset"];
    /// Windows of a dataset with differential privacy whose cells got noise.
    WINDOWS_NOISED = Counter "bailiwick_windows_noised" None ["dataset"];
    /// Windows of a dataset with differential privacy that did not leave: the budget of their day was spent, or they were charged
    /// before a crash.
    WINDOWS_WITHOUT_BUDGET = Counter "bailiwick_windows_without_budget" None ["dataset"];
    /// Releases put into the outbox, one for each window and destination.
    RELEASES = Counter "bailiwick_releases" None ["dataset"];
    /// Releases that a dry run did not make.
    RELEASES_DRY = Counter "bailiwick_releases_dry" None ["dataset"];
    /// Bytes that a destination took.
    RELEASED = Counter "bailiwick_released" Bytes ["destination"];
    /// Releases that wait in the outbox for a destination.
    OUTBOX_WAITING = Gauge "bailiwick_outbox_waiting_releases" None ["destination"];
    /// How long the oldest release that waits for a destination has waited in this process. 0 when none waits.
    OUTBOX_OLDEST = Gauge "bailiwick_outbox_oldest_release" Seconds ["destination"];
    /// 1 while a destination takes releases, 0 while it does not.
    DESTINATION_UP = Gauge "bailiwick_destination_up" None ["destination"];
    /// Cells that a destination cannot take, because they are larger than a message may be. They are set aside, in files.
    CELLS_ASIDE = Gauge "bailiwick_cells_set_aside" None ["destination"];
    /// Releases that did not leave because no policy let them go to their destination any more, and that are given up.
    RELEASES_DENIED = Counter "bailiwick_releases_denied" None ["destination"];

    /// Bytes that are left in the budget of a destination that has one.
    BUDGET_LEFT = Gauge "bailiwick_budget_left" Bytes ["destination"];
    /// Releases that wait because the budget of their destination does not suffice.
    RELEASES_DEFERRED = Gauge "bailiwick_deferred_releases" None ["destination"];
    /// Releases that were shed because the budget of their destination did not suffice: they did not leave.
    RELEASES_SHED = Counter "bailiwick_releases_shed" None ["destination"];
    /// Releases that did not leave because the budget of their destination did not suffice, and whose rows a dataset with
    /// longer windows adds up.
    RELEASES_WIDENED = Counter "bailiwick_releases_widened" None ["destination"];
    /// Releases that left without some of their rows, or with rows added up, because the budget of their destination did not
    /// suffice for the whole.
    RELEASES_DEGRADED = Counter "bailiwick_releases_degraded" None ["destination"];
    /// The cells that those have less than the whole.
    CELLS_LEFT_OUT = Counter "bailiwick_cells_left_out" None ["destination"];
    /// Releases that left as what had changed, because the budget of their destination did not suffice for the whole. Nothing is
    /// left out: their receiver can make the whole.
    RELEASES_ON_CHANGE = Counter "bailiwick_releases_on_change" None ["destination"];

    /// Bytes of a log on disk, in whole segments.
    LOG_SIZE = Gauge "bailiwick_log_size" Bytes ["log"];
    /// The most bytes that a log may have.
    LOG_QUOTA = Gauge "bailiwick_log_quota" Bytes ["log"];
    /// Segments of a log.
    LOG_SEGMENTS = Gauge "bailiwick_log_segments" None ["log"];
    /// Syncs of a log that made entries durable.
    LOG_COMMITS = Steps "bailiwick_log_commits" None ["log"];
    /// Entries that a log made durable. Divided by the commits: how many share a sync.
    LOG_ENTRIES = Steps "bailiwick_log_entries" None ["log"];
    /// How long a sync takes that makes entries of a log durable.
    LOG_SYNC = Histogram "bailiwick_log_sync" Seconds ["log"];
    /// 1 for the state that a log is in, 0 for the others: healthy, full, failing, closed, broken.
    LOG_STATE = Gauge "bailiwick_log_state" None ["log", "state"];
    /// Places of a log that are known to be damaged.
    LOG_DAMAGE = Gauge "bailiwick_log_damaged_places" None ["log"];

    /// The event time through which a dataset's windows have closed, in seconds since 1970; 0 before one has. The watermark's lag
    /// is `time()` less this, less the window (where windows overlap, how far apart they begin) and its grace. Of a dataset that
    /// adds up several windows, those of the finer one.
    WINDOWS_CLOSED = Gauge "bailiwick_windows_closed_through_timestamp" Seconds ["dataset"];
    /// Windows of a dataset from the oldest open one that holds records to the newest. Of a dataset that adds up several windows,
    /// those of the finer one.
    WINDOWS_OPEN = Gauge "bailiwick_open_windows" None ["dataset"];
    /// Bytes of memory that open windows hold, in steps of 64 KiB.
    WINDOWS_SIZE = Gauge "bailiwick_open_windows_size" Bytes [];
    /// Cells of open windows, in steps of 64. A cell counts once for each worker that has records of it.
    CELLS_OPEN = Gauge "bailiwick_open_cells" None [];
    /// The most bytes that open windows may hold.
    WINDOWS_LIMIT = Gauge "bailiwick_open_windows_limit" Bytes [];
    /// Requests that wait for a worker.
    INBOX_WAITING = Gauge "bailiwick_inbox_waiting_requests" None ["worker"];
    /// Calls and connections that wait for memory of the byte budget.
    BUDGET_WAITING = Gauge "bailiwick_budget_waiting" None [];
    /// Connections of producers that are open.
    CONNECTIONS = Gauge "bailiwick_connections" None [];
    /// Connections that were turned away before there was a request, by reason.
    TURNED_AWAY = Counter "bailiwick_connections_turned_away" None ["reason"];

    /// 1 for the policies in force. The label is the beginning of their digest.
    POLICY_INFO = Gauge "bailiwick_policy_info" None ["policy"];
    /// Reloads of the policies, by what came of them: changed, unchanged, refused.
    POLICY_RELOADS = Counter "bailiwick_policy_reloads" None ["outcome"];
    /// 1 when the last reload of the policies was refused: what is on disk is not what is in force.
    POLICY_STALE = Gauge "bailiwick_policy_stale" None [];
    /// Days until the next review that the policies ask for. Below 0: it is overdue.
    POLICY_REVIEW = Gauge "bailiwick_policy_review_days" None [];
    /// How much of a counter of a law is used, from 0 to 1, in steps of 0.05. 1: it has no room for anybody else.
    COUNTER_USED = Gauge "bailiwick_counter_used" None ["counter", "to"];
    /// When the gateway's certificate ends, in seconds since 1970.
    CERTIFICATE_END = Gauge "bailiwick_certificate_not_after_timestamp" Seconds [];
    /// 1 when the files of [tls] were replaced and cannot be used.
    CERTIFICATE_STALE = Gauge "bailiwick_certificate_stale" None [];

    /// 1 while the gateway can take records: what /readyz says.
    READY = Gauge "bailiwick_ready" None [];
    /// 1 for each thing that is wrong or needs a look. /status says what to do.
    CHECK_FAILING = Gauge "bailiwick_check_failing" None ["check"];
    /// 1. The label is the version of the program.
    BUILD_INFO = Gauge "bailiwick_build_info" None ["version"];
    /// Requests to this port, by path.
    HTTP_REQUESTS = Counter "bailiwick_http_requests" None ["path"];
    /// Connections to this port that were closed because there were too many.
    HTTP_TURNED_AWAY = Counter "bailiwick_http_connections_turned_away" None [];

    /// Processor time of the process, user and system.
    PROCESS_CPU = Counter "process_cpu" Seconds [];
    /// Memory of the process that is in RAM.
    PROCESS_MEMORY = Gauge "process_resident_memory" Bytes [];
    /// Open file descriptors of the process.
    PROCESS_DESCRIPTORS = Gauge "process_open_fds" None [];
    /// The most file descriptors that the process may open.
    PROCESS_DESCRIPTORS_MAX = Gauge "process_max_fds" None [];
    /// When the process started, in seconds since 1970.
    PROCESS_START = Gauge "process_start_time" Seconds [];
}

/// What each label stands for.
const LABELS: &[(&str, &str)] = &[
    ("stream", "a declared stream; `(not declared)` for all others together"),
    ("stage", "`wait`, `judge`, `place`, `journal`"),
    ("dataset", "a declared dataset"),
    ("destination", "a declared destination"),
    ("peer", "a peer that was declared at the start; `(other)` for those that a reload brought"),
    ("reason", "a [reason of a refusal](sending.md#refusals), or [of a connection](security.md#the-listener)"),
    (
        "log",
        "`journal`, `outbox`; `counters` where counters of laws are kept; `privacy` where a dataset has, or had, differential privacy",
    ),
    ("state", "`healthy`, `full`, `failing`, `closed`, `broken`"),
    ("worker", "a worker's number, from 0"),
    ("outcome", "`changed`, `unchanged`, `refused`"),
    ("policy", "the first 16 digits of the policies' digest"),
    ("check", "what is looked at for health, as in `/status`"),
    ("counter", "the rule id of a counter of a law"),
    ("to", "where the persons' records go: a country, a gateway, or `all` together"),
    ("version", "the program's version"),
    ("path", "`/healthz`, `/readyz`, `/status`, `/metrics`; `(other)`"),
];

/// The tables of docs/metrics.md.
#[must_use]
pub fn tables() -> String {
    let mut text = String::from("| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n");
    for declared in ALL {
        let kind = match declared.kind {
            Kind::Counter => "counter",
            Kind::Steps => "counter, in steps",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram, in steps",
        };
        let labels: Vec<String> = declared.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels, says) = (declared.full_name(), labels.join(", "), declared.says());
        // Writing to a string does not fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {says} |");
    }
    text.push_str("\n| label | its values |\n| --- | --- |\n");
    for (label, values) in LABELS {
        let _ = writeln!(text, "| `{label}` | {values} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_help_and_labels_that_are_explained() {
        let names: BTreeSet<String> = ALL.iter().map(Declaration::full_name).collect();
        assert_eq!(names.len(), ALL.len());
        let explained: BTreeSet<&str> = LABELS.iter().map(|(label, _)| *label).collect();
        let used: BTreeSet<&str> = ALL.iter().flat_map(|declared| declared.labels).copied().collect();
        assert_eq!(explained, used);
        for declared in ALL {
            let name = declared.full_name();
            assert!(declared.says().ends_with('.'), "{name}");
            assert!(name.starts_with("bailiwick_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
}
