//! Midnight, and a reload at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bailiwick::config::today;
use bailiwick::domain::evidence::Knowledge;
use bailiwick::domain::policy::Version;
use bailiwick::engine::versions::Versions;
use jiff::ToSpan;

use super::deployment::Deployment;

const DAYS: i32 = 50_000;

#[test]
fn a_day_that_begins_does_not_bring_back_what_a_reload_replaced() {
    let deployment = Deployment::new();
    let one = deployment.config();
    deployment.set_k(12);
    let two = deployment.config();
    let version = |day| Version::compile(Arc::clone(&one.policy), Arc::clone(&one.here), Knowledge::default(), day);
    // Asked once: a day may begin while this runs.
    let first = today();
    let versions = Versions::new(version(first), None, BTreeMap::new());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut day = first;
            for _ in 0..DAYS {
                day = day.saturating_add(1.day());
                versions.advance(day);
            }
            is_done.store(true, Ordering::SeqCst);
        });
        for config in [&two, &one].into_iter().cycle() {
            let (policy, here) = (Arc::clone(&config.policy), Arc::clone(&config.here));
            versions.replace(Version::compile(policy, here, Knowledge::default(), first), None);
            let day = versions.current().day;
            while versions.current().day == day && !is_done.load(Ordering::SeqCst) {
                assert_eq!(versions.current().digest(), config.policy.digest);
            }
            assert_eq!(versions.current().digest(), config.policy.digest);
            if is_done.load(Ordering::SeqCst) {
                return;
            }
        }
    });
    assert_eq!(versions.current().day, first.saturating_add(DAYS.days()));
}
