//! What an earlier version left on disk is gone on with.

use bailiwick::ingress::proto::ingest::Reason;
use jiff::SignedDuration;
use tonic_types::StatusExt;

use super::deployment::{Deployment, publish, visits};

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_version_0_1_is_gone_on_with() {
    for kind in ["plain", "sealed"] {
        let deployment = Deployment::golden(&format!("journal-0.1/{kind}"));
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
