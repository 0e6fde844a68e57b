//! `bailiwick schema`: JSON Schemas of `gateway.toml` and of the policy files, for editors. Made of the shapes that the
//! reader itself knows the keys by. What goes beyond keys and types, such as names that must be declared elsewhere, only
//! `bailiwick check` knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::commands::json::add;
use crate::config;
use crate::domain::document::keys::{Kind, Shape};
use crate::domain::policy;

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `gateway.toml`.
    Gateway,
    /// Policy files: classes, regions, regimes and policies.
    Policy,
}

/// The schema, in draft 7 of JSON Schema: the one that editors for TOML know best.
#[must_use]
pub fn schema(of: Of) -> String {
    let mut definitions = Definitions::default();
    let (title, root) = match of {
        Of::Gateway => ("bailiwick's gateway.toml", definitions.refer(config::SHAPE)),
        Of::Policy => {
            // By the value of `schema`, so that an editor says what is wrong, and not that the file is none of four.
            let names: Vec<&str> = policy::SHAPES.iter().map(|shape| shape.name).collect();
            let shapes = policy::SHAPES.iter().map(|shape| {
                let is_one = json!({ "properties": { "schema": { "const": shape.name } } });
                json!({ "if": is_one, "then": definitions.refer(shape) })
            });
            let shapes: Vec<Value> = shapes.collect();
            let schema = json!({ "enum": names, "description": "What this file is." });
            let root = json!({
                "type": "object",
                "properties": { "schema": schema },
                "required": ["schema"],
                "allOf": shapes,
            });
            ("bailiwick's policy files", root)
        }
    };
    let mut schema = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "title": title });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, root) {
        schema.extend(root);
        // The keys in the order of their names: shapes refer to each other.
        schema.insert("definitions".to_owned(), definitions.0.into_iter().collect::<Map<_, _>>().into());
    }
    format!("{schema:#}\n")
}

/// The schema of each shape that is referred to, by its name.
#[derive(Default)]
struct Definitions(BTreeMap<String, Value>);

impl Definitions {
    fn refer(&mut self, shape: &Shape) -> Value {
        let name = shape.name.replace('/', "-");
        if !self.0.contains_key(&name) {
            // Known before it is made: shapes may hold themselves.
            self.0.insert(name.clone(), Value::Null);
            let table = self.table(shape);
            self.0.insert(name.clone(), table);
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }

    fn table(&mut self, shape: &Shape) -> Value {
        let properties = shape.keys.iter().map(|key| {
            let mut value = self.kind(&key.kind);
            // Beside a reference draft 7 reads nothing else.
            if value.get("$ref").is_some() {
                value = json!({ "allOf": [value] });
            }
            add(&mut value, "description", key.about);
            (key.name.to_owned(), value)
        });
        let properties: Map<String, Value> = properties.collect();
        let required: Vec<&str> = shape.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
        json!({
            "description": shape.about,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Any => json!({}),
            Kind::Text => json!({ "type": "string" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Count => json!({ "type": "integer", "minimum": 0 }),
            Kind::Whole => json!({ "type": "integer" }),
            Kind::Number => json!({ "type": "number" }),
            // Editors hand over a date of TOML as text.
            Kind::Date => json!({ "type": "string", "format": "date" }),
            Kind::Duration => json!({ "type": "string", "pattern": DURATION }),
            Kind::Word(words) => json!({ "enum": words }),
            Kind::List(items) => json!({ "type": "array", "items": self.kind(items) }),
            Kind::Table(shape) => self.refer(shape),
            Kind::Named(values) => json!({ "type": "object", "additionalProperties": self.kind(values) }),
            Kind::Words(words, values) => {
                let values = self.kind(values);
                let properties: Map<String, Value> =
                    words.iter().map(|word| ((*word).to_owned(), values.clone())).collect();
                json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
            Kind::OneOf(kinds) => {
                let kinds: Vec<Value> = kinds.iter().map(|kind| self.kind(kind)).collect();
                json!({ "anyOf": kinds })
            }
        }
    }
}

/// A duration without years and months.
const DURATION: &str = r"^[+]?[Pp]([0-9]+[Ww])?([0-9]+[Dd])?([Tt]([0-9]+([.,][0-9]+)?[Hh])?([0-9]+([.,][0-9]+)?[Mm])?([0-9]+([.,][0-9]+)?[Ss])?)?$";
