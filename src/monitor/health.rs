//! What is looked at to tell whether the gateway is well, in plain words.

use serde_json::{Value, json};

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Well,
    /// Somebody should look. Records are taken.
    Warning,
    /// Records cannot be taken.
    NotReady,
}

impl State {
    /// Its name in `/status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Warning => "warning",
            Self::NotReady => "not ready",
        }
    }
}

/// One thing that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is called: one of a closed list.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// How it is, in a sentence.
    pub says: String,
    /// What to do; empty when there is nothing to do.
    pub help: String,
}

impl Check {
    /// It is as it should be.
    #[must_use]
    pub fn well(name: &'static str, says: impl Into<String>) -> Self {
        Self { name, state: State::Well, says: says.into(), help: String::new() }
    }

    /// Somebody should look.
    #[must_use]
    pub fn warning(name: &'static str, says: impl Into<String>, help: impl Into<String>) -> Self {
        Self { name, state: State::Warning, says: says.into(), help: help.into() }
    }

    /// Records cannot be taken.
    #[must_use]
    pub fn not_ready(name: &'static str, says: impl Into<String>, help: impl Into<String>) -> Self {
        Self { name, state: State::NotReady, says: says.into(), help: help.into() }
    }
}

/// How the gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it can go on. When not, it has to be started again.
    pub is_alive: bool,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

impl Health {
    /// Whether it can take records.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_alive && self.checks.iter().all(|check| check.state != State::NotReady)
    }

    /// As `/status` shows it, beside what else there is to say.
    #[must_use]
    pub fn json(&self, about: &Value) -> Value {
        let checks = self.checks.iter().map(
            |check| json!({ "check": check.name, "state": check.state.name(), "says": check.says, "do": check.help }),
        );
        json!({
            "alive": self.is_alive,
            "ready": self.is_ready(),
            "about": about,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_lets_it_be_ready_and_a_failure_does_not() {
        let health = |checks| Health { is_alive: true, checks };
        assert!(health(vec![Check::well("a", "a"), Check::warning("b", "b", "b")]).is_ready());
        assert!(!health(vec![Check::well("a", "a"), Check::not_ready("b", "b", "b")]).is_ready());
        assert!(!Health { is_alive: false, checks: vec![Check::well("a", "a")] }.is_ready());
    }
}
