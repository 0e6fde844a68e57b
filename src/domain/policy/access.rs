//! Who may do what here: `[permissions]`, and under which names identities speak.
//!
//! Nothing is allowed that no rule allows. A rule adds to what others allow, and takes nothing away, so their order is of
//! no account. Everything is looked up once for an identity ([`Access::of`]); what comes of it is asked for each request.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::document::Place;
use crate::domain::name::StreamName;
use crate::domain::pattern::Pattern;
use crate::domain::producer::{ProducerName, Series};

/// What may be asked of a gateway, besides taking records in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To list the services and their messages.
    Reflection,
    /// Metrics and the details of health, on the HTTP port.
    Metrics,
}

impl Right {
    /// Every choice with its name in a policy.
    pub const NAMES: [(&'static str, Self); 2] = [("reflection", Self::Reflection), ("metrics", Self::Metrics)];

    /// Its name in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, right)| *right == self).map_or("?", |(name, _)| name)
    }
}

/// A rule of `[permissions]`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its id.
    pub id: Arc<str>,
    /// Whom it is for.
    pub identities: Vec<Pattern>,
    /// The streams they may write.
    pub write: BTreeSet<StreamName>,
    /// The names of producers that they may speak as, besides their own.
    pub speaks_as: Vec<Pattern>,
    /// What they may read.
    pub read: BTreeSet<Right>,
    /// Where it is declared.
    pub place: Place,
}

/// The name of an identity.
#[derive(Debug, Clone)]
pub struct Naming {
    /// Who.
    pub identity: Pattern,
    /// The producer's name; its star is that of the identity.
    pub producer: Pattern,
    /// Where it is declared.
    pub place: Place,
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The rules, by their ids.
    pub rules: Vec<Arc<Rule>>,
    /// The names of identities.
    pub names: Vec<Naming>,
}

/// The id of what holds where no rule does.
pub const DEFAULT: &str = "default";

/// What one identity may do, under one version of the policies. By default nothing.
#[derive(Debug, Clone, Default)]
pub struct Granted {
    /// The name that it speaks under. `None`: it has none of its own, because another one may have it, or it is too long.
    own: Option<ProducerName>,
    rules: Vec<Arc<Rule>>,
}

/// A request that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The producer that it counts for.
    pub producer: ProducerName,
    /// The series that its number counts in.
    pub series: Series,
    /// The rule that allows it.
    pub rule: Arc<str>,
}

/// Something that may not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that decides it: the one that comes closest, or [`DEFAULT`].
    pub rule: Arc<str>,
    /// Why, in words that name no content.
    pub why: String,
}

impl Rule {
    /// What it allows, in words.
    #[must_use]
    pub fn says(&self) -> String {
        let list = |texts: Vec<String>| texts.join(", ");
        let streams = list(self.write.iter().map(String::from).collect());
        let names = list(self.speaks_as.iter().map(ToString::to_string).collect());
        let rights = list(self.read.iter().map(|right| right.name().to_owned()).collect());
        let may = [
            (!streams.is_empty()).then(|| format!("may write {streams}")),
            (!streams.is_empty() && !names.is_empty()).then(|| format!("also as {names}")),
            (!rights.is_empty()).then(|| format!("may read {rights}")),
        ];
        let may: Vec<String> = may.into_iter().flatten().collect();
        if may.is_empty() { "may do nothing".to_owned() } else { may.join(", ") }
    }
}

impl Access {
    /// What an identity may do.
    #[must_use]
    pub fn of(&self, identity: &str) -> Granted {
        let rules = self.rules.iter().filter(|rule| rule.identities.iter().any(|pattern| pattern.matches(identity)));
        Granted { own: self.own_name(identity), rules: rules.cloned().collect() }
    }

    /// The name of an identity: the one that is declared for it alone, or for those like it, or the identity itself.
    fn own_name(&self, identity: &str) -> Option<ProducerName> {
        let named = self.names.iter().filter_map(|naming| Some((naming, naming.identity.star(identity)?)));
        let named = named.min_by_key(|(naming, _)| naming.identity.is_open());
        match named {
            Some((naming, star)) => ProducerName::new(&naming.producer.with(star)).ok(),
            // Someone else must not be given what is this one's by default, nor the other way round.
            None if self.names.iter().any(|naming| naming.producer.matches(identity)) => None,
            None => ProducerName::new(identity).ok(),
        }
    }
}

impl Granted {
    /// The name that it speaks under when it names nobody.
    #[must_use]
    pub fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// The rules that are for it.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|rule| &**rule)
    }

    /// Whether it may write a stream as a producer. An empty name stands for its own.
    ///
    /// # Errors
    /// Why not.
    pub fn write(&self, stream: &str, producer: &str) -> Result<Spoken, Denied> {
        let mut writing = self.rules.iter().filter(|rule| rule.write.contains(stream)).peekable();
        let Some(first) = writing.peek().copied() else {
            return Err(self.denied(format!("to write stream `{stream}`")));
        };
        let own = self.own.as_ref().ok_or_else(|| Denied {
            rule: Arc::clone(&first.id),
            why: "this identity has no producer's name of its own: name one in [producers] of the policy".to_owned(),
        })?;
        if producer.is_empty() || **own == *producer {
            return Ok(Spoken { producer: own.clone(), series: Series::own(own), rule: Arc::clone(&first.id) });
        }
        let allowing = writing.find(|rule| rule.speaks_as.iter().any(|names| names.matches(producer)));
        match (allowing, ProducerName::new(producer)) {
            (Some(rule), Ok(producer)) => {
                // A series of its own: nobody who speaks for others may spend or fence their numbers.
                let series = Series::via(&producer, own);
                Ok(Spoken { producer, series, rule: Arc::clone(&rule.id) })
            }
            _ => Err(Denied {
                rule: Arc::clone(&first.id),
                why: format!("rule `{}` does not let this identity speak as the producer that is named", first.id),
            }),
        }
    }

    /// Whether it may write anything at all.
    ///
    /// # Errors
    /// Why not.
    pub fn write_any(&self) -> Result<(), Denied> {
        let may = self.rules.iter().any(|rule| !rule.write.is_empty());
        may.then_some(()).ok_or_else(|| self.denied("to write any stream".to_owned()))
    }

    /// Whether it may read something. The rule that allows it.
    ///
    /// # Errors
    /// Why not.
    pub fn read(&self, right: Right) -> Result<&Rule, Denied> {
        let allowing = self.rules().find(|rule| rule.read.contains(&right));
        allowing.ok_or_else(|| self.denied(format!("to read {}", right.name())))
    }

    fn denied(&self, what: String) -> Denied {
        match self.rules.first() {
            Some(rule) => {
                let why = format!("no rule allows this identity {what}; rule `{}` is for it, and does not", rule.id);
                Denied { rule: Arc::clone(&rule.id), why }
            }
            None => Denied {
                rule: Arc::from(DEFAULT),
                why: format!("no rule of [permissions] is for this identity, so nothing allows it {what}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Source;

    fn place() -> Place {
        Place { file: Arc::new(Source::new("a.toml".to_owned(), String::new())), span: 0..0, key: String::new() }
    }

    fn rule(id: &str, identities: &[&str], write: &[&str], speaks_as: &[&str]) -> Arc<Rule> {
        Arc::new(Rule {
            id: Arc::from(id),
            identities: identities.iter().map(|text| Pattern::of_identities(text).unwrap()).collect(),
            write: write.iter().map(|stream| stream.parse().unwrap()).collect(),
            speaks_as: speaks_as.iter().map(|text| Pattern::of_names(text).unwrap()).collect(),
            read: BTreeSet::new(),
            place: place(),
        })
    }

    fn naming(identity: &str, producer: &str) -> Naming {
        let (identity, producer) = (Pattern::of_identities(identity).unwrap(), Pattern::of_names(producer).unwrap());
        Naming { identity, producer, place: place() }
    }

    fn access() -> Access {
        Access {
            rules: vec![
                rule("tills", &["spiffe://d/tills/*"], &["payments"], &[]),
                rule("office", &["spiffe://d/office"], &["payments"], &["till-*"]),
                rule("office-too", &["spiffe://d/office"], &["orders"], &["desk"]),
                rule("reads", &["spiffe://d/reader"], &[], &[]),
            ],
            names: vec![naming("spiffe://d/tills/*", "till-*"), naming("spiffe://d/tills/0", "main")],
        }
    }

    fn spoken(identity: &str, stream: &str, producer: &str) -> Result<(String, String), String> {
        let spoken = access().of(identity).write(stream, producer);
        spoken
            .map(|spoken| (spoken.producer.to_string(), spoken.rule.to_string()))
            .map_err(|denied| denied.rule.to_string())
    }

    #[test]
    fn a_name_is_the_identitys_own_unless_a_rule_lets_it_use_another() {
        let ok = |producer: &str, rule: &str| Ok((producer.to_owned(), rule.to_owned()));
        let denied = |rule: &str| Err(rule.to_owned());
        assert_eq!(spoken("spiffe://d/tills/7", "payments", ""), ok("till-7", "tills"));
        assert_eq!(spoken("spiffe://d/tills/7", "payments", "till-7"), ok("till-7", "tills"));
        assert_eq!(spoken("spiffe://d/tills/7", "payments", "till-8"), denied("tills"));
        // The name of one alone counts before that of those like it.
        assert_eq!(spoken("spiffe://d/tills/0", "payments", ""), ok("main", "tills"));
        assert_eq!(spoken("spiffe://d/tills/0", "payments", "till-0"), denied("tills"));
        // Without a name it is called as it is spelled.
        assert_eq!(spoken("spiffe://d/office", "payments", ""), ok("spiffe://d/office", "office"));
        assert_eq!(spoken("spiffe://d/office", "payments", "till-7"), ok("till-7", "office"));
        // A name is allowed for the streams of its own rule.
        assert_eq!(spoken("spiffe://d/office", "orders", "desk"), ok("desk", "office-too"));
        assert_eq!(spoken("spiffe://d/office", "orders", "till-7"), denied("office-too"));
        assert_eq!(spoken("spiffe://d/office", "payments", "desk"), denied("office"));
    }

    #[test]
    fn what_no_rule_allows_is_denied_by_the_closest_rule_or_by_default() {
        let denied = |rule: &str| Err(rule.to_owned());
        assert_eq!(spoken("spiffe://d/tills/7", "orders", ""), denied("tills"));
        assert_eq!(spoken("spiffe://d/reader", "payments", ""), denied("reads"));
        assert_eq!(spoken("spiffe://d/tills/7/8", "payments", ""), denied(DEFAULT));
        assert_eq!(spoken("spiffe://d/nobody", "payments", "till-7"), denied(DEFAULT));
        assert!(
            access().of("spiffe://d/reader").write_any().is_err()
                && access().of("spiffe://d/office").write_any().is_ok()
        );
        assert_eq!(access().of("spiffe://d/office").read(Right::Reflection).unwrap_err().rule, Arc::from("office"));
    }

    #[test]
    fn an_identity_that_is_spelled_like_anothers_name_has_none() {
        let access = Access {
            rules: vec![rule("all", &["a/*", "b"], &["s"], &[])],
            names: vec![naming("b", "a/7"), naming("a/*", "x-*")],
        };
        assert_eq!(access.of("a/7").own(), Some("x-7"));
        let access = Access { names: vec![naming("b", "a/7")], ..access };
        assert_eq!((access.of("a/7").own(), access.of("a/8").own()), (None, Some("a/8")));
        assert_eq!(access.of("a/7").write("s", "").unwrap_err().rule, Arc::from("all"));
        assert!(access.of("a/7").write("s", "a/7").is_err());
    }
}
