//! Midnight, and a reload at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bailiwick::config::today;
use bailiwick::domain::evidence::Knowledge;
use bailiwick::domain::policy::Version;
use bailiwick::versions::Versions;

use super::deployment::Deployment;

#[test]
fn a_day_that_begins_does_not_bring_back_what_a_reload_replaced() {
    let deployment = Deployment::new();
    let one = deployment.config();
    deployment.set_k(12);
    let two = deployment.config();
    let version = |day| Version::compile(Arc::clone(&one.policy), Arc::clone(&one.here), Knowledge::default(), day);
    let versions = Arc::new(Versions::new(version(today()), None, BTreeMap::new()));
    let is_done = Arc::new(AtomicBool::new(false));
    let days = thread::spawn({
        let (versions, is_done) = (Arc::clone(&versions), Arc::clone(&is_done));
        move || {
            let mut day = today();
            while !is_done.load(Ordering::SeqCst) {
                day = day.tomorrow().unwrap();
                versions.advance(day);
                assert_eq!(versions.current().day, day);
            }
        }
    });
    for reload in 0..3_000 {
        let config = if reload % 2 == 0 { &two } else { &one };
        let (policy, here) = (Arc::clone(&config.policy), Arc::clone(&config.here));
        versions.replace(Version::compile(policy, here, Knowledge::default(), today()), None);
        let begun = versions.current().day;
        while versions.current().day < begun.tomorrow().unwrap() {
            assert_eq!(versions.current().digest(), config.policy.digest, "reload {reload}");
        }
        assert_eq!(versions.current().digest(), config.policy.digest, "reload {reload}");
    }
    is_done.store(true, Ordering::SeqCst);
    days.join().unwrap();
}
