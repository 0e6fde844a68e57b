//! A gateway that may not be where it is.

use super::deployment::{Deployment, POLICY, REGIME, regime};
use crate::common::changed;
use crate::common::process::{run, text};

#[test]
fn a_gateway_that_may_not_hold_what_it_serves_does_not_load() {
    let deployment = Deployment::new();
    assert_eq!(deployment.errors(), Vec::<String>::new());
    // Its records stay in FR, and the gateway is in DE.
    deployment.write(REGIME, regime("aa", "\"DE\", \"FR\"", "FR", "redirect"));
    let errors = deployment.errors();
    assert!(errors.iter().any(|error| error.contains("gateway.toml") && error.contains("aa")), "{errors:?}");
    // Only where a condition is shown.
    let law = regime("aa", "\"DE\", \"FR\"", "DE", "redirect");
    let law = changed(&law, "basis = \"at home\"", "basis = \"at home\"\nneeds = [\"dest.certified\"]");
    deployment.write(REGIME, law);
    assert_eq!(deployment.errors().len(), 1);
    let shown = "\n[gateway.conditions]\n\"dest.certified\" = { ref = \"C-1\", until = 2099-01-01 }\n";
    deployment.add("gateway.toml", shown);
    assert_eq!(deployment.errors(), Vec::<String>::new());
    deployment.edit("gateway.toml", "2099-01-01", "2020-01-01");
    assert_eq!(deployment.errors().len(), 1);
}

#[test]
fn a_gateway_that_may_hold_nothing_since_a_review_is_overdue_is_told_so() {
    let deployment = Deployment::new();
    deployment.edit(REGIME, "2099-01-01", "2026-11-01");
    let said = text(&run(deployment.root(), &["check"]).stderr);
    assert!(said.contains("lets no identifiable record of stream `visits` be in DE"), "{said}");
    assert!(said.contains("a review is overdue") && !said.contains("in [[shown]]"), "{said}");
    deployment.add(POLICY, "\n[review]\non_expired = \"warn\"\n");
    assert_eq!(deployment.errors(), Vec::<String>::new());
}

/// Who vouches for one stream frees no other to be held here.
#[test]
fn a_condition_counts_for_the_stream_that_it_is_shown_of_alone() {
    let deployment = Deployment::new();
    let law = regime("aa", "\"DE\", \"FR\"", "DE", "redirect");
    deployment.write(REGIME, changed(&law, "basis = \"at home\"", "basis = \"at home\"\nneeds = [\"data.agreed\"]"));
    let other = "[streams.staff]\nevent_time = \"at\"\ncontributor = \"person\"\n[streams.staff.facts]\n\
                 \"subject.residence\" = [{ field = \"country\", strength = 90 }]\n[streams.staff.fields]\n\
                 at = { type = \"timestamp\", class = \"personal\" }\n\
                 person = { type = \"string\", class = \"personal\" }\n\
                 country = { type = \"string\", class = \"personal\" }\n";
    let shown = |of: &str| {
        format!(
            "\n[[shown]]\nconditions = [\"data.agreed\"]\nfor = {{ {of} }}\nby = \"the works council\"\nref = \"WC-1\"\n"
        )
    };
    deployment.add(POLICY, &format!("\n{other}{}", shown("stream = \"staff\"")));
    let errors = deployment.errors();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.contains("lets no identifiable record of stream `visits` be in DE"), "{error}");
    deployment.add(POLICY, &shown("stream = \"visits\", gateway = \"g-2\""));
    assert_eq!(deployment.errors().len(), 1, "it is shown of another gateway");
    deployment.edit(POLICY, "gateway = \"g-2\"", "gateway = \"g-1\"");
    assert_eq!(deployment.errors(), Vec::<String>::new());
    deployment.add(POLICY, "\n[conditions]\n\"data.agreed\" = { ref = \"WC-1\" }\n");
    let errors = deployment.errors();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.contains("`data.agreed` is no longer shown of the whole deployment"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_a_running_one_take_such_policies() {
    let deployment = Deployment::new();
    let gateway = deployment.start().await;
    deployment.write(REGIME, regime("aa", "\"DE\", \"FR\"", "FR", "redirect"));
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("gateway.toml") && refused.contains("aa"), "{refused}");
    gateway.stop().await;
}

#[test]
fn policies_in_the_shadow_are_asked_about_the_records_that_there_are() {
    let deployment = Deployment::new();
    for file in ["policies/classes.toml", POLICY, REGIME, "policies/bb.toml"] {
        deployment.write(&changed(file, "policies/", "shadow/"), deployment.read(file));
    }
    deployment.add("gateway.toml", "\n[shadow]\npolicies = [\"shadow\"]\n");
    assert_eq!(deployment.errors(), Vec::<String>::new());
    let wider = "range = [0, 1000], required";
    deployment.edit("shadow/policy.toml", wider, "range = [0, 999], required");
    let errors = deployment.errors();
    assert!(
        errors.iter().any(|error| error.contains("in the shadow") && error.contains("has other fields")),
        "{errors:?}"
    );
}

/// A release is cut between cells: where one cell does not fit, no cut does.
#[test]
fn a_cell_that_may_be_larger_than_a_message_of_its_destination_is_an_error() {
    let deployment = Deployment::new();
    let desk =
        "[destinations.desk]\nkind         = \"file\"\ndirectory    = \"released/desk\"\nrotate_after = \"PT0S\"";
    let kafka = |bytes: usize| {
        format!(
            "[destinations.desk]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:9\"\ntopic = \"t\"\n\
             [destinations.desk.options]\n\"message.max.bytes\" = \"{bytes}\""
        )
    };
    deployment.edit("gateway.toml", desk, &kafka(100_000));
    assert_eq!(deployment.errors(), Vec::<String>::new());
    deployment.edit(
        POLICY,
        "\"DE\", \"FR\", \"IN\"]",
        &format!("\"DE\", \"FR\", \"IN\", \"{}\"]", "x".repeat(200_000)),
    );
    let errors = deployment.errors();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let said = ["policy.toml", "destinations.desk.accepts", "`by_country`", "`message.max.bytes` is 100000"];
    assert!(said.iter().all(|said| error.contains(said)), "{error}");
    // As large as it says that it has to be.
    let (_, rest) = error.split_once("can take ").unwrap();
    let bytes: usize = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 200_000 && bytes < 203_000, "{bytes}");
    deployment.edit("gateway.toml", "\"100000\"", &format!("\"{bytes}\""));
    assert_eq!(deployment.errors(), Vec::<String>::new());
}

/// As container orchestrators mount them: links into a hidden directory, which a hidden link names.
#[test]
fn policies_that_are_mounted_are_read_once() {
    let deployment = Deployment::new();
    let policies = deployment.path("policies");
    std::fs::create_dir(policies.join("..version-1")).unwrap();
    std::os::unix::fs::symlink("..version-1", policies.join("..data")).unwrap();
    for file in ["classes.toml", "policy.toml", "aa.toml", "bb.toml"] {
        std::fs::rename(policies.join(file), policies.join("..version-1").join(file)).unwrap();
        std::os::unix::fs::symlink(format!("..data/{file}"), policies.join(file)).unwrap();
    }
    assert_eq!(deployment.errors(), Vec::<String>::new());
}
