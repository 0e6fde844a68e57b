//! Models that stand for much.

use std::process::Command;

use bailiwick::domain::binary::hex;
use sha2::{Digest as _, Sha256};

use super::gateway::LIMIT_BYTES;
use crate::common::changed;
use crate::common::folder::Folder;
use crate::common::laws::{CLASSES, regime};
use crate::common::process::{BINARY, text};
use crate::made::{bytes, node, number, of_one, tensor};

const GATEWAY: &str = r#"
[gateway]
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:0"

[models]
tiny = "model.onnx"

[destinations.desk]
kind      = "file"
directory = "released"
"#;

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.s]
event_time  = "at"
contributor = "who"
model       = "tiny"

[streams.s.facts]
"subject.residence" = [{ always = ["DE"], strength = 90 }]

[streams.s.fields]
at  = { type = "timestamp", class = "personal" }
who = { type = "string", class = "personal" }
x   = { type = "float64", class = "personal" }

[models.tiny]
sha256 = "SHA256"

[[models.tiny.inputs]]
name   = "x"
fields = ["x"]

[[models.tiny.outputs]]
name  = "y"
field = "y"
kind  = "score"

[datasets.d]
stream  = "s"
window  = { size = "PT1M" }
metrics = [{ name = "records", fn = "count" }]

[destinations.desk]
country = "DE"
accepts = ["d"]
"#;

/// `y = x + 0`, where the zero is the sum of a tensor of gigabytes that ONNX Runtime would work out at the load.
fn folded() -> Vec<u8> {
    let shape: Vec<u8> = [23_170_i64, 23_170].iter().flat_map(|length| length.to_le_bytes()).collect();
    let keepdims = [bytes(1, b"keepdims"), number(3, 0), number(20, 2)].concat();
    let nodes = [
        node("ConstantOfShape", &["s"], &["l"], &[]),
        node("ReduceSum", &["l"], &["z"], &[keepdims]),
        node("Add", &["x", "z"], &["y"], &[]),
    ];
    of_one(&nodes, &[tensor("s", &[2], 7, &shape)])
}

#[test]
fn a_model_of_a_few_bytes_that_makes_gigabytes_is_an_error_of_check() {
    let model = folded();
    assert!(model.len() < 300, "{} bytes", model.len());
    let sha256 = hex(&Sha256::digest(&model));
    let folder = Folder::holding([
        ("gateway.toml", GATEWAY),
        ("policies/policy.toml", &changed(POLICY, "SHA256", &sha256)),
        ("policies/classes.toml", CLASSES),
        ("policies/aa.toml", &regime("aa", r#""DE""#, "DE", "refuse")),
    ]);
    folder.write("model.onnx", &model);
    let limited = format!("ulimit -d {}; exec \"$0\" check", LIMIT_BYTES >> 10);
    let checked = Command::new("sh").args(["-c", &limited, BINARY]).current_dir(folder.root()).output().unwrap();
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(64), "{said}");
    assert!(said.contains("makes a tensor of 536848900 elements") && said.contains("gateway.toml:12"), "{said}");
}
