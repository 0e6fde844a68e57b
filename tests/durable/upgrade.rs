//! A gateway continues with what an earlier version left on disk, and refuses what a newer one left.

use std::fs;

use bailiwick::ingress::proto::ingest::Reason;
use jiff::SignedDuration;
use tonic_types::StatusExt;

use super::deployment::{Deployment, publish, visits};

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_version_0_1_is_gone_on_with() {
    for kind in ["plain", "sealed"] {
        let deployment = Deployment::golden(&format!("journal-0.1/{kind}"));
        // Its open window is of the day on which it was written, and all those since then lie between it and now.
        deployment.replace("grace = \"PT1S\" }", "grace = \"PT1S\", open_max = 1000000000 }");
        let app = deployment.start().await.unwrap();
        // That version did not write down what requests came to.
        let repeat = publish(&app, visits((3, 1), 20, SignedDuration::ZERO)).await;
        let error = repeat.error.unwrap_or_else(|| panic!("{kind}: a repeat is known"));
        let status =
            tonic::Status::with_details(tonic::Code::Unknown, "", prost::Message::encode_to_vec(&error).into());
        let reason = status.get_error_details().error_info().unwrap().reason.clone();
        assert_eq!((reason.as_str(), repeat.duplicate), (Reason::OutcomeUnknown.as_str_name(), true));
        // Numbering goes on.
        let gap = publish(&app, visits((3, 4), 12, SignedDuration::ZERO)).await;
        assert!(gap.error.is_some());
        let next = publish(&app, visits((3, 3), 12, SignedDuration::ZERO)).await;
        assert_eq!((next.accepted, next.duplicate, next.durable_through), (12, false, 3), "{kind}");
        app.stop().await;
        // 60 wait in the outbox, 15 are in the checkpoint's window, 40 are in the journal.
        assert_eq!(deployment.counted(), 60 + 15 + 40 + 12, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_whose_columns_are_arrow_messages_are_counted() {
    for kind in ["plain", "sealed"] {
        let deployment = Deployment::golden(&format!("journal-7/{kind}"));
        let app = deployment.start().await.unwrap();
        app.stop().await;
        assert_eq!(deployment.counted(), 25, "{kind}");
        // Every fourth amount is missing: 18 of 25 have one, and each country has fewer than five without.
        assert_eq!(deployment.released().len(), 2, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_refused_and_left_alone() {
    const NEWER: u32 = 99;
    // Where the version stands, and where the checksum of what comes before it.
    for (directory, version, checksum) in [("checkpoints", 4, None), ("log", 8, Some(12))] {
        let deployment = Deployment::golden("journal-0.1/plain");
        let files = fs::read_dir(deployment.path("journal").join(directory)).unwrap();
        let newest = files.map(|file| file.unwrap().path()).filter(|file| file.is_file()).max().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        bytes[version..version + 4].copy_from_slice(&NEWER.to_le_bytes());
        let checksum = checksum.unwrap_or(bytes.len() - 4);
        let made = crc32c::crc32c(&bytes[..checksum]);
        bytes[checksum..checksum + 4].copy_from_slice(&made.to_le_bytes());
        fs::write(&newest, &bytes).unwrap();
        let refused = format!("{:#}", deployment.start().await.err().expect("it is not started"));
        for said in [newest.to_str().unwrap(), "version 99", "restore the backup of before the upgrade"] {
            assert!(refused.contains(said), "{said}: {refused}");
        }
        assert_eq!(fs::read(&newest).unwrap(), bytes);
    }
}
