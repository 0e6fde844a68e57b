//! Models: what feeds them, what comes out.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{NameOrTable, Problems, Spot, Table, hint, hint_of};
use crate::domain::model::{Encoding, Feature, Model, ModelInput, ModelOutput, OutputKind, OutsideRange};
use crate::domain::policy::regime::Classes;
use crate::domain::policy::treat::Treatments;
use crate::domain::stream::{FieldType, Stream};

use super::NAMES;
use super::classes::known_class;
use super::streams::{DeclaredStream, RANGE, read_range};
use super::words::{choice, chosen};

pub(super) const MODEL: Shape = Shape {
    name: "models.NAME",
    about: "A model: what feeds it, and what comes out.",
    keys: &[
        Key::required("sha256", Kind::Text, "The SHA-256 of its file, 64 hex digits."),
        Key::new("inputs", Kind::List(&Kind::Table(&INPUT)), "Its input tensors."),
        Key::new("outputs", Kind::List(&Kind::Table(&OUTPUT)), "The outputs that become fields."),
    ],
};

const INPUT: Shape = Shape {
    name: "models.NAME.inputs",
    about: "An input tensor of shape [records, width].",
    keys: &[
        Key::required("name", Kind::Text, "The tensor's name."),
        Key::required(
            "fields",
            Kind::List(&Kind::OneOf(&[Kind::Text, Kind::Table(&FEATURE)])),
            "What fills it, column after column.",
        ),
    ],
};

const ENCODE: [(&str, bool); 2] = [("one-hot", true), ("index", false)];

const FEATURE: Shape = Shape {
    name: "models.NAME.inputs.fields",
    about: "A field of texts that feeds a model.",
    keys: &[
        Key::required("field", Kind::Text, "The field."),
        Key::required("vocabulary", NAMES, "The words, in the model's order."),
        Key::required(
            "encode",
            Kind::Word(&names(&ENCODE)),
            "One column per word, or one column with the word's position.",
        ),
    ],
};

const KINDS: [(&str, OutputKind); 2] = [("score", OutputKind::Score), ("label", OutputKind::Label)];

const OUTPUT: Shape = Shape {
    name: "models.NAME.outputs",
    about: "An output of a model that becomes a field.",
    keys: &[
        Key::required("name", Kind::Text, "The tensor's name."),
        Key::required("field", Kind::Text, "The field's name."),
        Key::required("kind", Kind::Word(&names(&KINDS)), "A score is a float32, a label an int64."),
        Key::new("column", Kind::Count, "The tensor's column, counted from 0. Required where it has several."),
        Key::new("class", Kind::Text, "Its data class, beside those of the model's inputs."),
        Key::new("range", RANGE, "Where its values lie."),
        Key::new(
            "outside_range",
            Kind::Word(&names(&OutsideRange::NAMES)),
            "What becomes of a value outside the range. Default: refuse, the record.",
        ),
    ],
};

/// A model whose fields are names.
pub(super) struct DeclaredModel {
    pub(super) sha256: Spot<String>,
    inputs: Vec<DeclaredInput>,
    outputs: Vec<DeclaredOutput>,
}

struct DeclaredOutput {
    output: ModelOutput,
    field: Spot<String>,
    class: Option<Spot<String>>,
}

struct DeclaredInput {
    name: Spot<String>,
    features: Vec<(Spot<String>, Encoding)>,
}

pub(super) fn read(table: &Table<'_>) -> Option<DeclaredModel> {
    let problems = table.problems();
    let sha256 = table.need::<String>("sha256");
    if let Some(sha256) = &sha256
        && (sha256.value.len() != 64 || !sha256.value.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        problems.error_help(&sha256.place, "`sha256` is not 64 hex digits", "`sha256sum model.onnx` prints it");
    }
    let inputs: Vec<DeclaredInput> = table.array("inputs").iter().filter_map(read_input).collect();
    let names: Vec<Spot<String>> = inputs.iter().map(|input| input.name.clone()).collect();
    let outputs: Vec<_> = table.array("outputs").iter().filter_map(read_output).collect();
    check_twice(&names, problems);
    for (what, is_empty) in [("inputs", inputs.is_empty()), ("outputs", outputs.is_empty())] {
        if is_empty {
            problems.error(&table.place, format!("a model needs `{what}`"));
        }
    }
    let sha256 = sha256?;
    let sha256 = Spot { value: sha256.value.to_ascii_lowercase(), place: sha256.place };
    Some(DeclaredModel { sha256, inputs, outputs })
}

fn read_input(table: &Table<'_>) -> Option<DeclaredInput> {
    let name = table.need::<String>("name");
    let fields = table.need::<Vec<Spot<NameOrTable<'_>>>>("fields");
    table.done();
    let features = fields?.value.into_iter().filter_map(|feature| match feature.value {
        NameOrTable::Name(value) => Some((Spot { value, place: feature.place }, Encoding::Number)),
        NameOrTable::Table(table) => read_feature(&table),
    });
    let features = features.collect();
    Some(DeclaredInput { name: name?, features })
}

fn read_feature(table: &Table<'_>) -> Option<(Spot<String>, Encoding)> {
    let field = table.need::<String>("field");
    let words = table.need::<Vec<Spot<String>>>("vocabulary");
    let is_one_hot = choice(table, "encode", &ENCODE);
    table.done();
    let words = words?.value;
    check_twice(&words, table.problems());
    let words = words.into_iter().map(|word| word.value).collect();
    Some((field?, if is_one_hot? { Encoding::OneHot(words) } else { Encoding::Index(words) }))
}

/// Reports words that are listed twice: the second would never be met.
fn check_twice(words: &[Spot<String>], problems: &Problems) {
    let mut seen = BTreeSet::new();
    for word in words {
        if !seen.insert(&word.value) {
            problems.error(&word.place, format!("`{}` is listed twice", word.value));
        }
    }
}

fn read_output(table: &Table<'_>) -> Option<DeclaredOutput> {
    let tensor = table.need::<String>("name");
    let field = table.need::<String>("field");
    let kind = choice(table, "kind", &KINDS);
    let column = table.get::<usize>("column").map(|column| column.value);
    let class = table.get::<String>("class");
    let range = read_range(table);
    let outside = table.get::<String>("outside_range");
    let outside_range = outside.as_ref().map(|word| chosen(word, &OutsideRange::NAMES, table.problems()));
    if let (Some(outside), None) = (&outside, &range) {
        table.problems().error(&outside.place, "`outside_range` needs a `range`");
    }
    table.done();
    let field = field?;
    let output = ModelOutput {
        tensor: tensor?.value,
        field: field.value.clone(),
        kind: kind?,
        column,
        classes: class.iter().map(|class| class.value.clone()).collect(),
        range,
        outside_range: outside_range.flatten().unwrap_or(OutsideRange::Refuse),
    };
    Some(DeclaredOutput { output, field, class })
}

/// The model of a stream, with its fields found.
pub(super) fn resolve(
    declared: &DeclaredStream,
    stream: &Stream,
    treatments: &Treatments,
    models: &BTreeMap<String, Spot<DeclaredModel>>,
    classes: &Classes,
    problems: &Problems,
) -> Option<Model> {
    let wanted = declared.model.as_ref()?;
    let Some(model) = models.get(&wanted.value) else {
        let known = || models.keys().map(String::as_str);
        problems.error_help(
            &wanted.place,
            format!("there is no model `{}`", wanted.value),
            hint_of(&wanted.value, known()),
        );
        return None;
    };
    let inputs = model.value.inputs.iter().map(|input| ModelInput {
        name: input.name.value.clone(),
        features: input
            .features
            .iter()
            .filter_map(|(field, encoding)| feature(field, encoding, stream, treatments, problems))
            .collect(),
    });
    let inputs: Vec<ModelInput> = inputs.collect();
    // An output says about a record what its inputs do: it is of all their classes.
    let fed = inputs.iter().flat_map(|input| &input.features).filter_map(|feature| stream.fields.get(feature.column));
    let of_inputs: BTreeSet<&String> = fed.map(|field| &field.class).collect();
    let mut names: BTreeSet<&str> = stream.fields.iter().map(|field| field.name.as_str()).collect();
    let mut outputs = Vec::new();
    for declared in &model.value.outputs {
        if let Some(class) = &declared.class {
            known_class(class, classes, problems);
        }
        if !names.insert(&declared.output.field) {
            let message = format!("stream `{}` already has a field `{}`", stream.name, declared.output.field);
            problems.error(&declared.field.place, message);
        }
        let mut output = declared.output.clone();
        output.classes.extend(of_inputs.iter().map(|class| (*class).clone()));
        outputs.push(output);
    }
    Some(Model { name: wanted.value.clone(), sha256: model.value.sha256.value.clone(), inputs, outputs })
}

fn feature(
    field: &Spot<String>,
    encoding: &Encoding,
    stream: &Stream,
    treatments: &Treatments,
    problems: &Problems,
) -> Option<Feature> {
    let Some(column) = stream.position(&field.value) else {
        let known: Vec<&str> = stream.fields.iter().map(|field| field.name.as_str()).collect();
        let message = format!("stream `{}` has no field `{}`", stream.name, field.value);
        problems.error_help(&field.place, message, hint(&field.value, &known));
        return None;
    };
    if treatments.hides(column) {
        let message = format!("the treatment leaves nothing of `{}` for the model", field.value);
        problems.error_help(&field.place, message, "give it another `treatment`, or feed another field");
        return None;
    }
    let field_type = stream.fields.get(column)?.field_type;
    let fits = match encoding {
        Encoding::Number => field_type.is_numeric() || field_type == FieldType::Bool,
        Encoding::Index(_) | Encoding::OneHot(_) => field_type == FieldType::String,
    };
    if !fits {
        let message = format!("`{}` is a {field_type} and cannot be fed this way", field.value);
        problems.error_help(
            &field.place,
            message,
            "numbers and bools are fed by name, strings with a `vocabulary` and `encode`",
        );
        return None;
    }
    Some(Feature { column, encoding: encoding.clone() })
}
