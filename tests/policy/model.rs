//! A policy, a gateway and its records as plain data. Codes, names and days (`2026-11-23`) are strings.

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) classes: Vec<Class>,
    pub(super) regions: Vec<Region>,
    pub(super) disputed: Vec<(String, Vec<String>)>,
    pub(super) regimes: Vec<Regime>,
    pub(super) min_strength: u8,
    pub(super) unknown: String,
    pub(super) on_expired: String,
    pub(super) vouches: Vec<Vouch>,
    pub(super) producers: Vec<Producer>,
    pub(super) registries: Vec<Registry>,
    pub(super) stream: Stream,
    pub(super) k: usize,
    pub(super) destinations: Vec<Destination>,
    pub(super) overrides: Vec<Override>,
}

#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) parents: Vec<String>,
    pub(super) special: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) name: String,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) code: String,
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
    pub(super) needs: Vec<String>,
    /// That of its region.
    pub(super) review_by: String,
}

#[derive(Clone, Debug)]
pub(super) struct Regime {
    pub(super) id: String,
    pub(super) from: Option<String>,
    pub(super) review_by: String,
    pub(super) classes: Vec<String>,
    pub(super) localisation: String,
    pub(super) misroute: String,
    pub(super) min_contributors: Option<usize>,
    pub(super) applies: Vec<Applies>,
    pub(super) transfers: Vec<Transfer>,
}

#[derive(Clone, Debug)]
pub(super) struct Applies {
    pub(super) fact: String,
    pub(super) within: Vec<String>,
    pub(super) from: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) id: String,
    pub(super) form: String,
    pub(super) to: Vec<String>,
    pub(super) except: Vec<String>,
    pub(super) needs: Vec<String>,
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
}

/// A condition that somebody vouches for, and of what: kinds of things with their names, all of which must fit.
#[derive(Clone, Debug)]
pub(super) struct Vouch {
    pub(super) name: String,
    pub(super) of: Vec<(&'static str, String)>,
    pub(super) until: Option<String>,
}

/// A condition that has been shown of a recipient.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) until: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) name: String,
    pub(super) roles: Vec<String>,
    pub(super) facts: Vec<(String, Vec<String>)>,
}

/// A registry, with what its file holds: for each key the codes of each fact.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) name: String,
    pub(super) facts: Vec<String>,
    pub(super) rows: Vec<(String, Vec<Vec<String>>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) evidence: Vec<Evidence>,
    pub(super) untested: Vec<String>,
    /// Every field with its type, class and treatment.
    pub(super) fields: Vec<Field>,
    pub(super) model: Option<Model>,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) class: String,
    pub(super) drop: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) inputs: Vec<String>,
    /// Fields with the class that is declared of them.
    pub(super) outputs: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) fact: String,
    pub(super) source: Source,
    pub(super) strength: u8,
    pub(super) trusted_from: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub(super) enum Source {
    Field(String),
    Phone(String),
    Iban(String),
    Position,
    /// `by`: a field, or `producer`.
    Registry {
        name: String,
        by: String,
    },
    Producer,
    GeoIp,
    Always(Vec<String>),
}

impl Source {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Field(_) => "field",
            Self::Phone(_) => "phone",
            Self::Iban(_) => "iban",
            Self::Position => "position",
            Self::Registry { .. } => "registry",
            Self::Producer => "producer",
            Self::GeoIp => "geoip",
            Self::Always(_) => "always",
        }
    }

    /// The field of the record that it reads as text.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::Field(field) | Self::Phone(field) | Self::Iban(field) => Some(field),
            Self::Registry { by, .. } if by != "producer" => Some(by),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) name: String,
    pub(super) country: String,
    pub(super) operator: Option<String>,
    pub(super) onward: Vec<String>,
    pub(super) accepts: Vec<String>,
    pub(super) max_form: Option<String>,
    pub(super) conditions: Vec<Shown>,
}

#[derive(Clone, Debug)]
pub(super) struct Override {
    pub(super) id: String,
    pub(super) value: usize,
    pub(super) dataset: String,
    pub(super) destination: String,
    pub(super) until: String,
}

#[derive(Clone, Debug)]
pub(super) struct Gateway {
    pub(super) country: String,
    pub(super) serves: Vec<String>,
    pub(super) peers: Vec<Peer>,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) country: String,
    pub(super) serves: Vec<String>,
    pub(super) conditions: Vec<Shown>,
}

/// A record: its texts by field, and where it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) texts: Vec<(String, Option<String>)>,
    pub(super) latitude: Option<f64>,
    pub(super) longitude: Option<f64>,
}

impl Record {
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.texts.iter().find(|(name, _)| name == field).and_then(|(_, text)| text.as_deref())
    }

    pub(super) fn with(&self, field: &str, text: Option<&str>) -> Self {
        let mut changed = self.clone();
        changed.texts.retain(|(name, _)| name != field);
        changed.texts.push((field.to_owned(), text.map(str::to_owned)));
        changed
    }
}

/// Who sends it, and from which address.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) producer: String,
    pub(super) address: Option<u8>,
}
