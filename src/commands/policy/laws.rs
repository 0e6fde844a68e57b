//! The tables of docs/laws.md: what each law's file says of its own reading.

use std::fmt::Write as _;

use crate::domain::fact::Fact;
use crate::domain::policy::{PolicySet, Regime};

/// Laws on personal data, and laws on some data, each as a table in Markdown.
#[must_use]
pub fn tables(policy: &PolicySet) -> String {
    let is_on_personal = |law: &&Regime| law.classes.iter().any(|class| class == "personal");
    let (personal, some): (Vec<&Regime>, Vec<&Regime>) = policy.regimes.values().partition(is_on_personal);
    let mut text = "## Laws on personal data\n\n".to_owned();
    table(&mut text, &personal);
    text.push_str(
        "\n## Laws on some data\n\nA stream comes under these by a data class, given in brackets. If nobody gives the class, the \
         law is not asked.\n\n",
    );
    table(&mut text, &some);
    text
}

fn table(text: &mut String, laws: &[&Regime]) {
    text.push_str(
        "| law | confidence | certain | not certain: the stricter reading | left out, and why |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for law in laws {
        let notes = &law.notes;
        let said = |text: &str| if text.is_empty() { "-".to_owned() } else { text.replace('|', "\\|") };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            said(&name(law)),
            notes.confidence,
            said(&notes.certain),
            said(&notes.uncertain),
            said(&notes.left_out)
        );
    }
}

/// A law by its id and name, with what brings data under it where that is not that they are about persons, and its first
/// day if it has one.
fn name(law: &Regime) -> String {
    let systems = law.applies.iter().filter(|scope| scope.fact == Fact::SourceSystem);
    let systems = systems.flat_map(|scope| scope.within.names.iter().cloned());
    let special = law.classes.iter().filter(|class| *class != "personal").cloned();
    let by: Vec<String> = special.chain(systems).map(|name| format!("`{name}`")).collect();
    let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
    let from = law.from.map_or(String::new(), |from| format!("; from {from}"));
    format!("`{}` {}{by}{from}", law.id, law.name)
}
