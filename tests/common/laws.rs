//! Small laws.

/// The data classes of the small laws.
pub const CLASSES: &str = r#"
schema = "bailiwick.classes/1"

[classes.operational]
about   = "no person"
parents = []

[classes.personal]
about   = "a person"
parents = []
"#;

/// A regime over residents of a few countries (`"DE", "FR"`), whose records stay in one.
pub fn regime(id: &str, residents: &str, home: &str, misroute: &str) -> String {
    format!(
        r#"schema           = "bailiwick.regime/1"
id               = "{id}"
name             = "The law {id}"
notice           = "An example for counsel to confirm, not legal advice."
as_of            = 2026-11-01
review_by        = 2099-01-01
confidence       = "high"
sources          = ["invented for a test"]
classes          = ["personal"]
localisation     = "none"
misroute         = "{misroute}"
min_contributors = 10

[[applies]]
fact = "subject.residence"
in   = [{residents}]

[[transfers]]
id    = "home"
form  = "identifiable"
to    = ["{home}"]
basis = "at home"

[[transfers]]
id    = "statistics"
form  = "statistical"
to    = ["any"]
basis = "no person"
"#
    )
}
