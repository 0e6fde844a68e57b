//! The binary as a user meets it: the README's commands and TOML, exit codes, stopping.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;

mod program {
    mod bench;
    mod init;
    mod log;
    mod machine;
    mod metrics;
    mod noise;
    mod prometheus;
    mod readme;
    mod schema;
    mod security;
    mod send;
}

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use bailiwick::domain::policy::OnExpired;
use jiff::civil::Date;
use tempfile::TempDir;

use common::changed;
use common::folder::Folder;
use common::gateway::sound;
use common::process::{BINARY, Process, copy_of, run, text};

fn readme() -> String {
    fs::read_to_string(common::root().join("README.md")).unwrap()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_readmes_commands_do_what_they_say() {
    let shell = blocks(&readme(), "sh").concat();
    let commands: Vec<Vec<&str>> = shell
        .lines()
        .filter_map(|line| line.split('#').next().unwrap().trim().strip_prefix("bailiwick "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let [
        check,
        serve,
        send,
        inspect,
        test,
        law,
        matrix,
        explain,
        replay,
        init,
        schema,
        completions,
        version,
        authority,
        of_gateway,
        of_producer,
        serve_tls,
        send_tls,
        loads @ ..,
    ] = commands.as_slice()
    else {
        panic!("the README's commands changed: {commands:?}");
    };
    let (directory, port) = copy_of("card-fraud");
    let checked = run(directory.root(), check);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("payments_by_country  fraud_desk   IE         eu-gdpr  yes"));
    let gateway = Process::start_with(directory.root(), serve);
    let endpoint = format!("http://127.0.0.1:{port}");
    let sent = run(directory.root(), &[send.as_slice(), &["--to", &endpoint]].concat());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert!(text(&sent.stdout).starts_with("16716 records read, 8417 accepted"), "{}", text(&sent.stdout));
    let inspected = run(directory.root(), inspect);
    assert!(
        text(&inspected.stdout).contains("stream payments, producer till-7: 8,417 records"),
        "{}",
        text(&inspected.stdout)
    );
    let [one, many] = loads else { panic!("the README's commands changed: {loads:?}") };
    for load in [one, many] {
        let measured = run(directory.root(), &[load.as_slice(), &["--for", "1"]].concat());
        assert!(measured.status.success(), "{load:?} {}", text(&measured.stderr));
        assert!(text(&measured.stdout).contains("  records/s "), "{}", text(&measured.stdout));
    }
    gateway.stop();
    with_tls(
        &directory,
        &[authority, of_gateway, of_producer],
        serve_tls,
        send_tls,
        "16716 records read, 8417 accepted",
    );
    let tested = run(directory.root(), test);
    let passed = text(&tested.stdout);
    assert!(tested.status.success() && passed.contains(" passed, 0 failed"), "{passed}{}", text(&tested.stderr));
    let cases: usize = passed.lines().last().unwrap().split(' ').nth(2).unwrap().parse().unwrap();
    assert!(cases > 1_400, "{passed}");
    let explained = run(directory.root(), explain);
    assert!(text(&explained.stdout).contains("us-dsp/applies/subject.residence"), "{}", text(&explained.stdout));
    let replayed = run(directory.root(), replay);
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    for command in [law, matrix, init, schema, completions, version] {
        let done = run(directory.root(), command);
        assert!(done.status.success() && !done.stdout.is_empty(), "{command:?} {}", text(&done.stderr));
    }
    let lines = common::lines(&directory.root().join("examples/card-fraud/released"));
    assert!(lines.len() > 50, "{} cells", lines.len());
}

/// Makes the certificates of an example with TLS, runs it, and sends. What `send` says begins so.
fn with_tls(folder: &Folder, certificates: &[&Vec<&str>], serve: &[&str], send: &[&str], begins: &str) {
    for command in certificates {
        let made = run(folder.root(), command);
        assert!(made.status.success(), "{command:?} {}", text(&made.stderr));
    }
    let port = common::free_port();
    let config = serve.last().unwrap();
    let of_the_example = |name: &str| fs::read_to_string(common::root().join(name)).unwrap();
    let access = changed(config, "tls.toml", "access.toml");
    folder.write(&access, of_the_example(&access));
    folder.write(config, changed(&of_the_example(config), "127.0.0.1:7400", &format!("127.0.0.1:{port}")));
    let checked = run(folder.root(), &["check", "-c", config]);
    assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), String::new()));
    let gateway = Process::start_with(folder.root(), serve);
    let here = format!("https://localhost:{port}");
    let send: Vec<&str> =
        send.iter().map(|word| if *word == "https://localhost:7400" { &here } else { *word }).collect();
    let sent = run(folder.root(), &send);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert!(text(&sent.stdout).starts_with(begins), "{}", text(&sent.stdout));
    // Who shows no certificate gets nowhere.
    let is_shown = |word: &str| word.starts_with("--cert") || word == "--key" || word.contains("/tls/");
    let bare: Vec<&str> = send.iter().copied().filter(|word| !is_shown(word) || word.ends_with("/ca.pem")).collect();
    let refused = run(folder.root(), &[&bare[..], &["--producer", "somebody", "--patience", "1"]].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(gateway.stop().iter().any(|line| line.contains("no_certificate")));
}

#[test]
fn the_examples_run_as_their_pages_say() {
    for (name, begins) in [
        ("delivery-eta", "26971 records read, 9403 accepted"),
        ("predictive-maintenance", "25200 records read, 13860 accepted"),
    ] {
        let page = fs::read_to_string(common::root().join("examples").join(name).join("README.md")).unwrap();
        let shell = blocks(&page, "sh").concat();
        let commands: Vec<Vec<&str>> = shell
            .lines()
            .filter_map(|line| line.split('#').next().unwrap().trim().strip_prefix("bailiwick "))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let [check, serve, send, certificates @ .., serve_tls, send_tls] = commands.as_slice() else {
            panic!("the commands of {name} changed: {commands:?}");
        };
        let (folder, port) = copy_of(name);
        let checked = run(folder.root(), check);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        let gateway = Process::start_with(folder.root(), serve);
        let sent = run(folder.root(), &[send.as_slice(), &["--to", &format!("http://127.0.0.1:{port}")]].concat());
        assert!(sent.status.success() && text(&sent.stdout).starts_with(begins), "{}", text(&sent.stdout));
        gateway.stop();
        with_tls(&folder, &certificates.iter().collect::<Vec<_>>(), serve_tls, send_tls, begins);
    }
}

#[test]
fn the_readmes_configuration_is_valid() {
    let toml = blocks(&readme(), "toml");
    let [gateway, policy] = toml.as_slice() else { panic!("the README's TOML changed") };
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    fs::remove_file(example.join("policies")).unwrap();
    fs::create_dir(example.join("policies")).unwrap();
    fs::write(example.join("gateway.toml"), gateway).unwrap();
    fs::write(example.join("policies/policy.toml"), policy).unwrap();
    let checked = run(&example, &["check"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

const EXAMPLES: [&str; 6] =
    ["card-fraud/gateway", "predictive-maintenance/gateway", "delivery-eta/gateway", "demo/eu", "demo/us", "demo/in"];

/// Whoever tries an example does so on any day, whatever the shipped laws say of that day.
#[test]
fn the_examples_do_on_any_day_what_they_do_today() {
    let far = Date::constant(2040, 1, 1);
    for name in EXAMPLES {
        let config = sound(&common::root().join("examples").join(format!("{name}.toml")));
        assert_eq!(config.policy.on_expired, OnExpired::Warn, "{name}");
        let egress = config.policy.egress(&config.here.serves, far);
        assert!(!egress.is_empty() && egress.iter().all(|row| row.permission.is_allowed()), "{name}: {egress:?}");
    }
}

#[test]
fn every_example_is_valid_without_a_warning_but_that_a_day_has_passed() {
    for name in EXAMPLES {
        let checked = run(&common::root(), &["check", "-c", &format!("examples/{name}.toml")]);
        assert!(checked.status.success(), "{name}: {}", text(&checked.stderr));
        assert_eq!(text(&checked.stderr), "", "{name}");
    }
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_line() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let policy = fs::read_to_string(example.join("policies/policy.toml")).unwrap();
    let changes = [
        ("min_contributors = 10", "min_contributors = 4", "a cell of fewer than 5 contributors gives people away"),
        ("fn = \"variance\"", "fn = \"max\"", "`max` is the value of a single contributor"),
        ("undeclared   = \"refuse\"", "undeclard    = \"refuse\"", "did you mean `undeclared`?"),
        ("country = \"IE\"", "country = \"XQ\"", "`XQ` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code"),
        ("class = \"personal\", bytes_max = 6", "class = \"persnal\", bytes_max = 6", "there is no class `persnal`"),
        ("model        = \"fraud\"", "model        = \"frod\"", "there is no model `frod`"),
    ];
    let mut broken = policy;
    for (good, bad, _) in changes {
        broken = changed(&broken, good, bad);
    }
    fs::remove_file(example.join("policies")).unwrap();
    fs::create_dir(example.join("policies")).unwrap();
    fs::write(example.join("policies/policy.toml"), broken).unwrap();
    for command in ["check", "run"] {
        let checked = run(&example, &[command]);
        assert_eq!(checked.status.code(), Some(64));
        let problems = text(&checked.stderr);
        for (_, _, message) in changes {
            assert!(problems.contains(message), "{message}\n{problems}");
        }
        assert!(problems.contains("policies/policy.toml:"), "{problems}");
    }
}

#[test]
fn what_delivery_into_kafka_rests_on_cannot_be_changed() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let gateway = fs::read_to_string(example.join("gateway.toml")).unwrap();
    let checked = |more: &str, options: &str| {
        let kafka = format!("\"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"releases\"\n{more}\n#");
        let to_kafka = [("\"file\"", kafka.as_str()), ("directory    =", "# "), ("rotate_after =", "# ")];
        let config = to_kafka.iter().fold(gateway.clone(), |config, (from, to)| changed(&config, from, to));
        let options = format!("\n[destinations.fraud_desk.options]\n{options}\n");
        fs::write(example.join("gateway.toml"), config + &options).unwrap();
        let checked = run(&example, &["check"]);
        (checked.status.code(), text(&checked.stderr))
    };
    let settings = "\"transactional.id\" = \"mine\"\n\"acks\" = \"0\"\n\"group.id\" = \"g\"";
    let (code, problems) = checked("exactly_once = true", settings);
    assert_eq!(code, Some(64));
    for name in ["transactional.id", "acks", "group.id"] {
        assert!(problems.contains(&format!("`{name}` is set by bailiwick and cannot be changed")), "{problems}");
    }
    let (code, problems) = checked("progress_topic = \"p\"", "");
    assert_eq!((code, problems.contains("`progress_topic` needs `exactly_once = true`")), (Some(64), true));
    let (code, problems) = checked("exactly_once = true\nprogress_topic = \"releases\"", "");
    assert_eq!((code, problems.contains("must be another topic")), (Some(64), true));
    let (code, problems) = checked("exactly_once = true", "\"security.protocol\" = \"plaintext\"");
    assert_eq!((code, problems.contains("`security.protocol` is not taken here")), (Some(64), true), "{problems}");
    let (code, problems) = checked("", "\"retry.backoff.ms\" = \"10\"");
    assert_eq!((code, problems.as_str()), (Some(0), ""));
}

#[test]
fn settings_of_a_destination_that_cannot_be_used_are_errors_with_their_lines() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let gateway = fs::read_to_string(example.join("gateway.toml")).unwrap();
    let (before, _) = gateway.split_once("[destinations.fraud_desk]").unwrap();
    let checked = |destination: &str| {
        fs::write(example.join("gateway.toml"), format!("{before}[destinations.fraud_desk]\n{destination}\n")).unwrap();
        let checked = run(&example, &["check"]);
        (checked.status.code(), text(&checked.stderr))
    };
    let refused = |destination: &str, message: &str| {
        let (code, problems) = checked(destination);
        assert_eq!(code, Some(64), "{destination}");
        assert!(problems.contains(message), "{message}: {problems}");
        assert!(problems.contains("gateway.toml:"), "{problems}");
    };
    let kafka = |brokers: &str, topic: &str, options: &str| {
        format!(
            "kind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\n[destinations.fraud_desk.options]\n{options}"
        )
    };
    refused(&kafka("", "t", ""), "names no broker");
    refused(&kafka("a:1", "a b", ""), "cannot be a topic's name");
    refused(&kafka("a:1", "t", "\"no.such\" = \"1\""), "No such configuration property");
    refused(&kafka("a:1", "t", "\"linger.ms\" = \"soon\""), "librdkafka does not take `linger.ms`");
    refused(&kafka("a:1", "t", "\"security.protocol\" = \"ssl\""), "with [destinations.NAME.tls] it is TLS");
    refused(&kafka("a:1", "t", "\"plugin.library.paths\" = \"x.so\""), "foreign code");
    let file = |more: &str| format!("kind = \"file\"\ndirectory = \"released\"\n{more}");
    refused(&file("mode = \"0999\""), "no mode of a file");
    refused(&file("mode = \"0444\""), "no mode of a file");
    refused(&file("group = \"no-such-group\""), "there is no group `no-such-group`");
    assert_eq!(checked(&file("mode = \"0600\"\ngroup = \"root\"")), (Some(0), String::new()));
    // In one topic with another destination.
    let same = "kind = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"t\"\n";
    let both = format!("{before}[destinations.other]\n{same}\n[destinations.fraud_desk]\n{same}");
    fs::write(example.join("gateway.toml"), both).unwrap();
    let problems = text(&run(&example, &["check"]).stderr);
    assert!(problems.contains("send to the same topic `t`"), "{problems}");
}

#[test]
fn an_egress_that_a_regime_does_not_allow_is_an_error() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let policy = fs::read_to_string(example.join("policies/policy.toml")).unwrap();
    fs::remove_file(example.join("policies")).unwrap();
    fs::create_dir(example.join("policies")).unwrap();
    fs::write(example.join("policies/policy.toml"), changed(&policy, "country = \"IE\"", "country = \"CN\"")).unwrap();
    let gateway = fs::read_to_string(example.join("gateway.toml")).unwrap();
    fs::write(example.join("gateway.toml"), changed(&gateway, "\"eu-gdpr\"]", "\"us-dsp\"]")).unwrap();
    let checked = run(&example, &["check"]);
    assert_eq!(checked.status.code(), Some(64));
    assert!(text(&checked.stderr).contains("regime `us-dsp` lets no released cell of `payments_by_country` go to CN"));
}

#[test]
fn a_model_that_is_not_the_declared_one_is_named() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let other = common::root().join("examples/delivery-eta/model.onnx");
    fs::remove_file(example.join("model.onnx")).unwrap();
    fs::copy(&other, example.join("model.onnx")).unwrap();
    let checked = run(&example, &["check"]);
    assert_eq!(checked.status.code(), Some(64));
    assert!(
        text(&checked.stderr).contains("model `fraud`: ./model.onnx has sha256")
            || text(&checked.stderr).contains("model.onnx has sha256")
    );
}

/// What is wrong with files beside the configuration is said with everything else, each at the line that names it.
#[test]
fn models_and_registries_are_wrong_at_a_line_like_everything_else() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let gateway = fs::read_to_string(example.join("gateway.toml")).unwrap();
    let broken = changed(&gateway, "fraud = \"model.onnx\"", "fraud = \"/dev/zero\"");
    assert_ne!(broken, gateway);
    let broken = changed(&broken, "country  = \"DE\"", "county   = \"DE\"\ncountry  = \"DE\"");
    fs::write(example.join("gateway.toml"), broken + "\n[registries]\ndevices = \"missing.csv\"\n").unwrap();
    for command in ["check", "run"] {
        let checked = run(&example, &[command]);
        let problems = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(64), "{problems}");
        for wanted in
            ["unknown key `county`", "`/dev/zero` is a character device", "missing.csv", "no policy declares registry"]
        {
            assert!(problems.contains(wanted), "{wanted}\n{problems}");
        }
        assert!(problems.contains("models.fraud") && problems.contains("registries.devices"), "{problems}");
    }
    let missing = run(&example, &["check", "-c", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(text(&missing.stderr).contains("nowhere.toml"), "{}", text(&missing.stderr));
}

#[test]
fn a_missing_onnx_runtime_is_one_clear_message() {
    let (directory, _) = copy_of("card-fraud");
    let output = Command::new(BINARY)
        .args(["check", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .env("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let message = text(&output.stderr);
    assert!(message.contains("ONNX Runtime was not found at /nonexistent/libonnxruntime.so"), "{message}");
    assert!(message.contains("ORT_DYLIB_PATH"), "{message}");
}

#[test]
fn the_demo_adds_up() {
    let out = TempDir::new().unwrap();
    let demo = run(&common::root(), &["demo", "--out", &out.path().display().to_string()]);
    assert!(demo.status.success(), "{}", text(&demo.stderr));
    let summary = text(&demo.stdout);
    assert!(summary.contains("16,716 records read, sent to `eu` first; 14,722 accepted in all"), "{summary}");
    assert!(summary.contains("61,514 records scored"), "{summary}");
    let ratio = summary.lines().find_map(|line| line.strip_suffix(" to 1")?.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(ratio >= Some(100), "{summary}");
    for gateway in ["eu", "us", "in"] {
        assert!(!common::lines(&out.path().join(gateway)).is_empty(), "{gateway}");
    }
}

/// A text in which all that ends or is to be reviewed does so in the far future: the days of the page pass.
fn without_ends(mut text: String) -> String {
    for key in ["until", "review_by"] {
        let mut seen = 0;
        while let Some(at) = text[seen..].find(key) {
            seen += at + key.len();
            let value = text[seen..].trim_start().strip_prefix("= ").unwrap_or_default();
            if value.starts_with("20") {
                let day = text.len() - value.len();
                text.replace_range(day..day + "2099-12-31".len(), "2099-12-31");
            }
        }
    }
    text
}

/// The blocks of docs/policy.md are one deployment, with what they refer to and do not show.
#[test]
fn the_policy_language_as_it_is_documented_is_valid() {
    let page = fs::read_to_string(common::root().join("docs/policy.md")).unwrap();
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    fs::remove_file(example.join("policies")).unwrap();
    fs::create_dir(example.join("policies")).unwrap();
    fs::create_dir_all(example.join("../policies-next")).unwrap();
    let mut files: BTreeMap<&str, String> = [
        ("gateway.toml", GATEWAY.to_owned()),
        ("policies/more.toml", MORE.to_owned()),
        ("policies/more-regions.toml", MORE_REGIONS.to_owned()),
    ]
    .into();
    let mut others = String::new();
    for block in blocks(&page, "toml") {
        let name = match block.lines().next().unwrap() {
            // They share their cells with the dataset of this page, and an override is of that one.
            first if first.contains("a second dataset of a stream") || first.contains("dataset of the same stream") => {
                others.push_str(&block);
                continue;
            }
            first if first.contains("bailiwick.regions/1") => "policies/regions.toml",
            first if first.contains("bailiwick.classes/1") => "policies/classes.toml",
            first if first.contains("bailiwick.regime/1") => "policies/example-law.toml",
            // They are of datasets that have more than the one of this page: bounds, a city.
            first if first.contains("bailiwick.test/1") || first.starts_with("# of a dataset") => continue,
            "# gateway.toml" => "gateway.toml",
            _ => "policies/policy.toml",
        };
        files.entry(name).or_default().push_str(&block);
    }
    // Nor does the dataset have noise.
    let policy = files.get_mut("policies/policy.toml").unwrap();
    let rho = policy.lines().find(|line| line.starts_with("rho_per_day")).unwrap().to_owned();
    *policy = changed(policy, &rho, "");
    // No database of network addresses comes with bailiwick.
    let gateway = files.get_mut("gateway.toml").unwrap();
    let geoip = "databases = [\"one.mmdb\", \"two.mmdb\"]\nagree     = 2";
    *gateway = changed(gateway, &format!("[geoip]\n{geoip}"), "");
    fs::write(example.join("devices.csv"), "device_id,site_country\nd-1,CH\n").unwrap();
    files.values_mut().for_each(|text| *text = without_ends(std::mem::take(text)));
    for (name, text) in &files {
        fs::write(example.join(name), text).unwrap();
    }
    for name in ["classes.toml", "example-law.toml", "regions.toml", "policy.toml", "more.toml", "more-regions.toml"] {
        fs::copy(example.join("policies").join(name), example.join("../policies-next").join(name)).unwrap();
    }
    let checked = run(&example, &["check"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("example-law/transfers/statistics"), "{}", text(&checked.stdout));
    assert!(text(&checked.stdout).contains("OVR-7: k = 8"), "{}", text(&checked.stdout));

    let both = format!("{}\n{others}", files["policies/policy.toml"]);
    fs::write(example.join("policies/policy.toml"), &both).unwrap();
    let checked = run(&example, &["check"]);
    let refused = text(&checked.stderr);
    assert!(
        refused.contains("dataset `payments_by_country` shares its cells with `swiss`, `swiss_by_channel`"),
        "{refused}"
    );
    let (before, relaxed) = both.split_once("[[overrides]]").unwrap();
    let (_, after) = relaxed.split_once("until    = 2099-12-31\n").unwrap();
    fs::write(example.join("policies/policy.toml"), format!("{before}{after}")).unwrap();
    let checked = run(&example, &["check"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let said = text(&checked.stdout);
    assert!(said.contains("the same cells as those of payments_by_country"), "{said}");
    assert!(said.contains("its rows are sums of the rows of swiss_by_channel"), "{said}");
    assert!(said.contains("it pays for 139 of a day's 139 windows"), "{said}");
}

const GATEWAY: &str = r#"
[gateway]
id       = "docs"
country  = "CH"
serves   = ["example-law"]
policies = ["policies"]

[gateway.conditions]
"dest.scc" = { ref = "own" }
"dest.tia" = { ref = "own" }

[destinations.hub]
kind      = "file"
directory = "released"
"#;

const MORE: &str = r#"
schema = "bailiwick.policy/1"

[datasets.payments_by_country]
stream   = "payments"
window   = { size = "PT10M" }
group_by = [{ field = "channel", domain = ["atm", "pos", "web"] }]
metrics  = [{ name = "payments", fn = "count" }]
"#;

/// The region and the condition that the page mentions.
const MORE_REGIONS: &str = r#"
schema = "bailiwick.regions/1"

[regions.eea]
as_of     = 2026-11-23
review_by = 2027-02-23
sources   = ["for this test"]
codes     = ["DE", { code = "CN", needs = ["controller.cn_not_ciio"] }]
"#;
