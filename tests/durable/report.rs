//! The report for the person who answers for what leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::operations::send_payments;
use crate::common::folder::{HOURLY, card_fraud_with};
use crate::common::ledger::entries;
use crate::common::process::{copy_of, run, text};
use crate::common::{self, TestGateway};

/// A dataset with noise, for the example of card fraud.
const NOISY: &str = r#"
[release.private]
records_per_contributor = 1
cells_per_contributor   = 1

[datasets.noisy]
stream           = "payments"
release          = "private"
window           = { size = "PT1H", grace = "PT1M" }
min_contributors = 10
group_by         = [{ field = "country", domain = ["DE", "FR"] }]
metrics          = [{ name = "payments", fn = "count" }]

[datasets.noisy.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = 0.003
rho_per_day    = 0.06
"#;

/// Runs `bailiwick report` on a ledger. What it prints, which must be a success.
#[track_caller]
fn printed(ledger: &Path, arguments: &[&str]) -> String {
    let ledger = ledger.display().to_string();
    let output = run(Path::new("."), &[&["report", "-d", &ledger], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn report(ledger: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(ledger, &[&["--json"], arguments].concat())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_left_and_nothing_of_a_ledger_that_is_not_sound() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    let telemetry = gateway.telemetry();
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let bytes_in = telemetry.total(|counts| &counts.bytes_in);
    let ledger = journal.path().join("ledger");
    let lines = common::lines(released.path());
    let files = walk(released.path());
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let releases: BTreeSet<&str> = lines.iter().map(|line| line["release"].as_str().unwrap()).collect();
    // It agrees with what the destination has.
    let config = common::root().join("examples/card-fraud/gateway.toml").display().to_string();
    let whole = report(&ledger, &["--bytes-in", "20160000", "--price-per-gib", "2", "-c", &config]);
    let [flow] = whole["left"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!(
        (flow["destination"].as_str(), flow["dataset"].as_str()),
        (Some("fraud_desk"), Some("payments_by_country"))
    );
    assert_eq!(flow["releases"].as_u64(), Some(releases.len() as u64));
    assert_eq!((flow["confirmed"].as_u64(), flow["may_have_left"].as_u64()), (flow["releases"].as_u64(), Some(0)));
    assert_eq!(flow["cells"].as_u64(), Some(lines.len() as u64));
    let starts = lines.iter().map(|line| line["window_start"].as_str().unwrap());
    assert_eq!(flow["first_window_start"].as_str(), starts.min());
    assert_eq!(whole["bytes"]["fraud_desk"].as_u64(), Some(bytes));
    assert_eq!(whole["cost"]["ratio"].as_f64(), Some(20_160_000.0 / bytes as f64));
    let saved = (20_160_000.0 - bytes as f64) / f64::from(1 << 30) * 2.0;
    assert_eq!((whole["cost"]["saved"].as_f64(), whole["cost"]["currency"].as_str()), (Some(saved), Some("EUR")));
    assert_eq!(whole["cost"]["bytes_in_by"], "given");
    // What came in the ledger knows within a step: twice k times what stands for a record.
    let by_ledger = report(&ledger, &[]);
    let said = by_ledger["cost"]["bytes_in"].as_u64().unwrap();
    assert!(bytes_in.abs_diff(said) < 20 * 16_384 && said > bytes_in / 2, "{said} of {bytes_in}");
    assert_eq!((&by_ledger["cost"]["bytes_in_by"], &by_ledger["cost"]["saved"]), (&"ledger".into(), &Value::Null));
    assert_eq!(by_ledger["cost"]["borders"].as_array().map(Vec::len), Some(0), "nobody says where destinations are");
    // The configuration says what crosses which border, and what that costs.
    let (priced, _) = copy_of("card-fraud");
    let of_priced = "examples/card-fraud/gateway.toml";
    priced.add(of_priced, "\n[cost]\ncurrency = \"USD\"\nprice_per_gib = 3\n");
    let priced_config = priced.path(of_priced).display().to_string();
    let accepted =
        entries(&ledger).iter().filter_map(|entry| entry["bytes_accepted"]["payments"].as_u64()).sum::<u64>();
    assert!(accepted < said, "{accepted} of {said}: some records belong elsewhere");
    let border = |arguments: &[&str]| {
        let cost = report(&ledger, &[&["-c", &priced_config], arguments].concat())["cost"].clone();
        let [border] = cost["borders"].as_array().unwrap().as_slice() else { panic!("{cost}") };
        assert_eq!(
            (&border["from"], &border["to"], &border["destination"]),
            (&"DE".into(), &"IE".into(), &"fraud_desk".into())
        );
        (border["price_per_gib"].as_f64().unwrap(), border["saved"].as_f64().unwrap(), cost["currency"].clone())
    };
    let at = |price: f64| (accepted as f64 - bytes as f64) / f64::from(1 << 30) * price;
    assert_eq!(border(&[]), (3.0, at(3.0), "USD".into()));
    priced.edit(of_priced, "kind         = \"file\"", "kind         = \"file\"\nprice_per_gib = 0.5");
    assert_eq!(border(&[]), (0.5, at(0.5), "USD".into()));
    assert_eq!(border(&["--price-per-gib", "2", "--currency", "CHF"]), (2.0, at(2.0), "CHF".into()));
    let page = printed(&ledger, &["-c", &priced_config]);
    for part in
        ["<td>DE to IE</td>", "USD per GiB", "The gateway counts the bytes that come in", &format!("{:.2}", at(0.5))]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    for (from, to, wrong) in [
        ("price_per_gib = 0.5", "price_per_gib = -0.5", "`price_per_gib` is less than 0"),
        ("currency = \"USD\"", "currency = \"dollars\"", "`dollars` is no currency"),
    ] {
        priced.edit(of_priced, from, to);
        let refused = run(Path::new("."), &["check", "-c", &priced_config]);
        assert!(text(&refused.stderr).contains(wrong), "{}", text(&refused.stderr));
        priced.edit(of_priced, to, from);
    }
    // It says under which model, and by which rules, also of policies that are in force no more.
    let models = flow["models"].as_object().unwrap();
    let sha256 = models["fraud"][0].as_str().unwrap();
    assert_eq!((models.len(), &whole["runs"][0]["models"]["fraud"]), (1, &Value::from(sha256)));
    let (others, digest) = (card_fraud_with("hourly", HOURLY), flow["policies"][0].as_str().unwrap());
    let of_others = others.path(of_priced).display().to_string();
    let under = || report(&ledger, &["-c", &of_others])["rules"].clone();
    let unknown = under();
    assert_eq!((&unknown["before"], &unknown["unknown"]), (&Value::Array(Vec::new()), &Value::from(vec![digest])));
    let directory = format!("directory = \"{}\"", journal.path().display());
    others.edit(of_priced, "directory = \"journal\"", &directory);
    let known = under();
    assert_eq!((&known["before"][0]["policy"], &known["unknown"]), (&Value::from(digest), &Value::Array(Vec::new())));
    assert_eq!(known["before"][0]["egress"], whole["rules"]["egress"]);
    assert_ne!(known["policy"], known["before"][0]["policy"]);
    let page = printed(&ledger, &["-c", &of_others]);
    assert!(
        page.contains("which something left under last on") && page.contains(&format!("fraud {}", &sha256[..12])),
        "{page}"
    );
    assert!(whole["rules"]["egress"].as_array().unwrap().iter().any(|row| row["is_allowed"] == true), "{whole}");
    assert_eq!(whole["entries"].as_u64(), Some(entries(&ledger).len() as u64));
    assert!(whole["runs"][0]["stopped"].is_string() && whole["policies"][0]["policy"] == flow["policies"][0]);
    // What was refused is there, with where it belongs.
    let refused = whole["refused"].as_array().unwrap();
    let of = |to: &str| {
        refused.iter().filter(|row| row["to"] == to).map(|row| row["records"].as_u64().unwrap()).sum::<u64>()
    };
    let (in_bom, us_iad) = (of("in-bom-1"), of("us-iad-1"));
    assert!(in_bom > 0 && us_iad > 0 && in_bom + us_iad <= 16_716 - 8_417, "{refused:?}");
    assert!(refused.iter().all(|row| row["records"].as_u64().unwrap().is_multiple_of(20)), "{refused:?}");
    assert_eq!(whole["quarantine"]["held"].as_u64(), Some(0));
    // The stop says what it worked: records within a step, and no energy unless somebody says what a core draws.
    let work = &whole["work"];
    let records = work["records"].as_u64().unwrap();
    assert!(records.is_multiple_of(20) && records.abs_diff(8_417) < 20, "{work}");
    let seconds = work["cpu_seconds"].as_f64().unwrap();
    let per_million = seconds * 1e6 / records as f64;
    assert_eq!(work["cpu_seconds_per_million_records"].as_f64(), Some(per_million));
    assert!(work["watts_per_core"].is_null() && work["joules_per_million_records"].is_null(), "{work}");
    let estimated = &report(&ledger, &["--watts-per-core", "7.5"])["work"];
    assert_eq!(estimated["joules_per_million_records"].as_f64(), Some(per_million * 7.5));
    let page = printed(&ledger, &["--watts-per-core", "7.5"]);
    assert!(page.contains(&format!("worked {seconds:.3} CPU seconds")) && page.contains("an estimate"), "{page}");
    let powerless = run(Path::new("."), &["report", "--watts-per-core", "0"]);
    assert!(text(&powerless.stderr).contains("not a number of watts"), "{}", text(&powerless.stderr));
    // The extract for the record of processing names data, recipients and what they rest on, and what is missing.
    let extract = &whole["extracts"]["gdpr_article_30"];
    let [activity] = extract["activities"].as_array().unwrap().as_slice() else { panic!("{extract}") };
    let kept: Vec<_> =
        activity["data"].as_array().unwrap().iter().map(|field| field["kept"].as_str().unwrap()).collect();
    assert!(activity["purposes"].is_null() && kept.contains(&"as it is"), "{activity}");
    let [recipient] = activity["recipients"].as_array().unwrap().as_slice() else { panic!("{activity}") };
    assert_eq!((recipient["destination"].as_str(), &recipient["cells"]), (Some("fraud_desk"), &flow["cells"]));
    let rule = recipient["safeguards"][0]["rule"].as_str().unwrap();
    assert!(rule.starts_with("eu-gdpr/"), "{rule}");
    assert!(extract["to_be_added"][1].as_str().unwrap().contains("purposes"));
    assert!(whole["extracts"]["us_28_cfr_202"].is_null(), "no such law governs here");
    // Sums of longer windows are kept for longer.
    let kept = |extracts: &Value| {
        let said = extracts["gdpr_article_30"]["retention"].as_array().unwrap().clone();
        said.iter().any(|said| said.as_str().unwrap().contains("are added up for `hourly`"))
    };
    let with_hours = card_fraud_with("hourly", HOURLY);
    let hourly = with_hours.path("examples/card-fraud/gateway.toml").display().to_string();
    assert!(!kept(&whole["extracts"]) && kept(&report(&ledger, &["-c", &hourly])["extracts"]));
    // What leaves with noise is no cell of so many contributors.
    let with_noise = card_fraud_with("noisy", NOISY);
    let noisy = with_noise.path("examples/card-fraud/gateway.toml").display().to_string();
    let activity = &report(&ledger, &["-c", &noisy])["extracts"]["gdpr_article_30"]["activities"][0];
    let form = |dataset: &str| {
        let mut recipients = activity["recipients"].as_array().unwrap().iter();
        recipients.find(|to| to["dataset"] == dataset).unwrap()["form"].as_str().unwrap().to_owned()
    };
    assert!(
        form("noisy").contains("with noise") && form("payments_by_country").starts_with("statistical"),
        "{activity}"
    );
    // The same under a configuration in the US: the extract for the record of transactions.
    let (folder, _) = copy_of("card-fraud");
    let file = "examples/card-fraud/gateway.toml";
    let whole_text = folder.read(file);
    let (gateway, peers) = whole_text.split_once("[[peers]]").unwrap();
    let (_, others) = peers.split_once("[[peers]]").unwrap();
    folder.write(file, format!("{gateway}[[peers]]{others}"));
    folder.edit(file, "\"eu-fra-1\"", "\"us-iad-1\"");
    folder.edit(file, "country  = \"DE\"", "country  = \"US\"");
    let shown = "[\"us-dsp\"]\nconditions = { \"dest.not_covered_person\" = { ref = \"example\" } }";
    folder.edit(file, "[\"eu-gdpr\"]", shown);
    let here = folder.path(file).display().to_string();
    let extracts = &report(&ledger, &["-c", &here])["extracts"];
    assert!(extracts["gdpr_article_30"].is_null(), "{extracts}");
    let extract = &extracts["us_28_cfr_202"];
    let [transaction] = extract["transactions"].as_array().unwrap().as_slice() else { panic!("{extract}") };
    assert_eq!((&transaction["cells"], transaction["countries"][0].as_str()), (&flow["cells"], Some("IE")));
    let safeguard = &transaction["safeguards"][0];
    assert_eq!(safeguard["rule"], "us-dsp/transfers/statistics");
    let conditions = safeguard["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|condition| condition["condition"] == "dest.us_dsp_onward_ban"), "{safeguard}");
    assert_eq!((&extract["regimes"][0]["confidence"], &extract["keep_for_years"]), (&"medium".into(), &10.into()));
    assert!(
        printed(&ledger, &["-c", &here]).contains("<h2>Extract for the record of transactions (28 CFR 202.1101)</h2>")
    );
    // Nobody says what came in before the gateway was there.
    let unknown = run(
        Path::new("."),
        &["report", "-d", &ledger.display().to_string(), "--to", "2026-01-01", "--price-per-gib", "2"],
    );
    assert!(text(&unknown.stderr).contains("give `--bytes-in`"), "{}", text(&unknown.stderr));
    // Another span of time holds nothing.
    let nothing = report(&ledger, &["--to", "2026-01-01"]);
    assert_eq!((nothing["entries"].as_u64(), nothing["left"].as_array().map(Vec::len)), (Some(0), Some(0)));
    let at = run(Path::new("."), &["report", "--from", "2026-11-02", "--to", "2026-11-01"]);
    assert!(text(&at.stderr).contains("`--from` must be before `--to`"), "{}", text(&at.stderr));
    // The page has the same numbers.
    let page = printed(&ledger, &["--bytes-in", "20160000", "--price-per-gib", "2", "-c", &config]);
    for part in [
        "<h2>What left, and to where</h2>",
        "<td>payments_by_country</td>",
        &format!("<td class=\"n\">{}</td>", lines.len()),
        &format!("20160000 bytes came in, {bytes} left, "),
        "<h2>What was not taken in</h2>",
        "<h2>Extract for the record of processing (GDPR Art. 30(1))</h2>",
        "<td>belongs_elsewhere</td>",
        "<h2>What this does not prove</h2>",
        whole["key"].as_str().unwrap(),
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // It says nothing of a ledger that was changed.
    let bundle = walk(&ledger.join("tile/entries")).remove(0);
    let mut changed = fs::read(&bundle).unwrap();
    let cells = changed.windows(8).position(|bytes| bytes == b"\"cells\":").unwrap() + 8;
    changed[cells] = if changed[cells] == b'9' { b'8' } else { b'9' };
    fs::write(&bundle, changed).unwrap();
    let refused = run(Path::new("."), &["report", "-d", &ledger.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("BAD entry") && !text(&refused.stdout).contains("<html"));
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
