//! A gateway whose model gives each record a score of its own, fails on some records, and cannot be used for others.

use bailiwick::domain::binary::hex;
use sha2::{Digest as _, Sha256};

use crate::common::folder::Folder;
use crate::common::laws::{CLASSES, regime};
use crate::common::{changed, free_port};
use crate::made::{bytes, node, number, of_one, tensor};

/// The most records of a request.
pub const ROWS_MAX: usize = 12;
/// The most bytes of a request.
pub const BYTES_MAX: usize = 20_000;
/// The stream that records are sent to.
pub const STREAM: &str = "visits";

/// What the model says of the records whose `x` is the position: NaN and 7 cannot be used. It fails on any other `x`.
pub const SCORES: [f32; 12] = [0.0, 0.0625, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75, 0.9375, 1.0, f32::NAN, 7.0];

const GATEWAY: &str = r#"
[gateway]
stop_within = "PT60S"
on_stop  = "keep"
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:0"

[http]
listen = "127.0.0.1:HTTP"

[scoring]
workers = WORKERS
rows_together_max = TOGETHER

[limits]
batch_rows_max  = ROWS_MAX
batch_bytes_max = BYTES_MAX

[models]
table = "model.onnx"

[journal]
directory = "journal"
checkpoint_every = "CHECKPOINT"

[[peers]]
id       = "g-2"
country  = "IN"
endpoint = "http://127.0.0.1:1"
serves   = ["bb"]

[destinations.desk]
kind         = "file"
directory    = "released"
rotate_after = "PT0S"
"#;

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.visits]
event_time   = "at"
idle_after   = "PT10H"
history_from = "2013-01-01T00:00:00Z"
contributor  = "who"
model        = "table"
undeclared   = "UNDECLARED"

[streams.visits.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.visits.fields]
at      = { type = "timestamp", class = "personal" }
who     = { type = "string", class = "personal", bytes_max = 12 }
country = { type = "string", class = "personal" }
kind    = { type = "string", class = "personal" }
x       = { type = "float64", class = "personal" }
amount  = { type = "float64", class = "personal", range = [0, 1000] }

[models.table]
sha256 = "SHA256"

[[models.table.inputs]]
name   = "x"
fields = ["x"]

[[models.table.outputs]]
name  = "y"
field = "y"
kind  = "score"
class = "personal"
range = [0, 1]

[datasets.d]
stream           = "visits"
window           = { size = "PT10M", grace = "PT1M" }
min_contributors = 5
group_by = [
  { field = "country", domain = ["DE", "FR"] },
  { field = "kind", domain = ["a", "b"] },
]
metrics = [
  { name = "visits", fn = "count" },
  { name = "amount", fn = "sum", field = "amount" },
  { name = "score", fn = "sum", field = "y" },
  { name = "scores", fn = "histogram", field = "y", edges = [0, 0.25, 0.5, 0.75, 1] },
]

[destinations.desk]
country = "DE"
accepts = ["d"]
"#;

/// How a gateway is, besides.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub workers: usize,
    pub rows_together_max: usize,
    /// Whether values of undeclared fields are dropped. Else their records are refused.
    pub drops: bool,
    pub has_checkpoints: bool,
}

/// The folder of a gateway, and where its metrics are.
pub fn deployment(shape: Shape) -> (Folder, String) {
    let model = model();
    let address = format!("127.0.0.1:{}", free_port());
    let every = if shape.has_checkpoints { "PT1S" } else { "PT1H" };
    let gateway = changed(GATEWAY, "127.0.0.1:HTTP", &address);
    let gateway = changed(&changed(&gateway, "WORKERS", &shape.workers.to_string()), "CHECKPOINT", every);
    let gateway = changed(&gateway, "= TOGETHER", &format!("= {}", shape.rows_together_max));
    let gateway = changed(&gateway, "= ROWS_MAX", &format!("= {ROWS_MAX}"));
    let gateway = changed(&gateway, "= BYTES_MAX", &format!("= {BYTES_MAX}"));
    let policy = changed(POLICY, "UNDECLARED", if shape.drops { "drop" } else { "refuse" });
    let policy = changed(&policy, "SHA256", &hex(&Sha256::digest(&model)));
    let folder = Folder::holding([
        ("gateway.toml", gateway.as_str()),
        ("policies/classes.toml", CLASSES),
        ("policies/policy.toml", &policy),
        ("policies/bb.toml", &regime("bb", r#""IN""#, "IN", "redirect")),
    ]);
    folder.write("model.onnx", model);
    set_policies(&folder, false);
    (folder, address)
}

/// Whether records of France are refused. Else they are taken.
pub fn set_policies(folder: &Folder, refuses_france: bool) {
    let law = |id, residents, home, misroute| {
        // Cells leave from five persons on.
        changed(&regime(id, residents, home, misroute), "min_contributors = 10", "min_contributors = 5")
    };
    let (here, elsewhere) =
        if refuses_france { (r#""DE""#, r#""US", "FR""#) } else { (r#""DE", "FR""#, r#""US""#) };
    folder.write("policies/aa.toml", law("aa", here, "DE", "redirect"));
    folder.write("policies/cc.toml", law("cc", elsewhere, "US", "refuse"));
}

fn model() -> Vec<u8> {
    let to_int64 = [bytes(1, b"to"), number(3, 7), number(20, 2)].concat();
    let table: Vec<u8> = SCORES.iter().flat_map(|value| value.to_le_bytes()).collect();
    let nodes = [node("Cast", &["x"], &["at"], &[to_int64]), node("Gather", &["table", "at"], &["y"], &[])];
    of_one(&nodes, &[tensor("table", &[SCORES.len() as i64], 1, &table)])
}
