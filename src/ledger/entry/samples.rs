//! An entry of each kind, for tests.

use super::*;

/// One of each kind, and of each form that a kind had: what came with a later version comes later.
pub(in super::super) fn all() -> Vec<Entry> {
    let text = str::to_owned;
    let whats = [
        What::Start {
            gateway: text("eu-1"),
            program: text("0.1.0"),
            dry_run: false,
            models: [(text("fraud"), "ab".repeat(32))].into(),
        },
        What::Policy { policy: "cd".repeat(32), reload: false },
        What::Damage { of: text("outbox"), places: 2 },
        What::Intent {
            release: "0f".repeat(16),
            destination: text("desk"),
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            window_end: text("2026-11-26T03:10:00Z"),
            policy: "cd".repeat(32),
            cells: 12,
            commitment: "ef".repeat(32),
            outbox: 7,
            degraded: None,
        },
        What::Sent { destination: text("desk"), releases: vec!["0f".repeat(16)], bytes: 4_096 },
        What::Unsettled { release: "0f".repeat(16), destination: text("desk"), intent: 3, known: Known::Nothing },
        What::Withheld {
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            at_least: 100,
            outbox: Some(8),
        },
        What::Override {
            id: text("audit-2026"),
            dataset: text("payments"),
            destination: text("desk"),
            window_start: text("2026-11-26T03:00:00Z"),
            outbox: Some(8),
        },
        What::Missed { entries: 5 },
        What::Stop { gateway: text("eu-1") },
        What::Refused {
            stream: text("payments"),
            closed_before: Some(text("2026-11-26T03:10:00Z")),
            reason: text("belongs_elsewhere"),
            rules: vec![text("in-rbi/localise"), text("in-dpdp/any")],
            to: Some(text("in-bom-1")),
            records: 340,
            outbox: 8,
        },
        What::Quarantine { held: 60, released: 40, discarded: 20 },
        What::Model { model: text("fraud"), before: Some("ab".repeat(32)), now: Some("ac".repeat(32)) },
        What::Reload { of: Reread::Policies, outcome: Outcome::Refused },
        What::Shed {
            release: "1f".repeat(16),
            destination: text("hub"),
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            window_end: text("2026-11-26T03:10:00Z"),
            cells: 12,
            outbox: 9,
            widened: None,
        },
        What::Privacy {
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            outcome: Paid::Noised,
            rho_billionths: 10_000_000,
            outbox: 8,
        },
        work_of_old(None),
        What::Intent {
            release: "2f".repeat(16),
            destination: text("hub"),
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            window_end: text("2026-11-26T03:10:00Z"),
            policy: "cd".repeat(32),
            cells: 12,
            commitment: "ee".repeat(32),
            outbox: 10,
            degraded: Some(Degraded { steps: vec![text("top")], whole: "3f".repeat(16), cells: 190 }),
        },
        What::Shed {
            release: "4f".repeat(16),
            destination: text("hub"),
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            window_end: text("2026-11-26T03:10:00Z"),
            cells: 12,
            outbox: 11,
            widened: Some(text("payments_by_day")),
        },
        What::Denied {
            release: "5f".repeat(16),
            destination: text("hub"),
            dataset: text("payments"),
            window_start: text("2026-11-26T03:00:00Z"),
            window_end: text("2026-11-26T03:10:00Z"),
            cells: 12,
            outbox: 12,
        },
        work_of_old(Some(1_344_000_000)),
        What::Work {
            since: Some(text("2026-11-26T00:00:00Z")),
            until: Some(text("2026-11-27T00:00:00Z")),
            cpu_seconds: None,
            cpu_milliseconds: Some(86_250),
            records: 4_000_000,
            bytes_in: Some(1_344_000_000),
            bytes_accepted: Some([(text("payments"), 1_310_720_000)].into()),
        },
    ];
    let entries = whats.into_iter().zip(0..);
    entries.map(|(what, second)| Entry::new(1_795_000_000_000_000 + second * 1_000_000, what)).collect()
}

/// What was worked, as it was said before version 10.
fn work_of_old(bytes_in: Option<u64>) -> What {
    let (since, until, cpu_milliseconds, bytes_accepted) = (None, None, None, None);
    What::Work { since, until, cpu_seconds: Some(86), cpu_milliseconds, records: 4_000_000, bytes_in, bytes_accepted }
}
