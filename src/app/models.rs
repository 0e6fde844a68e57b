//! The models of a configuration: loaded for each worker, and checked with everything else that is declared.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::config::Config;
use crate::domain::document::{Place, Problems};
use crate::domain::model::Model;
use crate::domain::name::StreamName;
use crate::domain::policy::StreamPlan;
use crate::scoring::{self, Error, Runtime, Scorer, Watch};

/// The scorers of one worker, by stream.
pub(super) fn scorers(config: &Config, watch: &Watch) -> anyhow::Result<BTreeMap<StreamName, Scorer>> {
    let mut scorers = BTreeMap::new();
    for (plan, model) in with_models(config) {
        let runtime = Runtime::load(config.onnxruntime.as_deref())?;
        let path = config.models.get(&model.name).with_context(|| format!("model `{}` has no file", model.name))?;
        scorers.insert(plan.stream.name.clone(), runtime.scorer(model, path, watch, config.scored_together_max)?);
    }
    Ok(scorers)
}

/// What is wrong with the models' files, and with ONNX Runtime. A model is tried only where nothing else is wrong: what
/// it is declared to be would be read wrongly.
pub(super) fn check(config: &Config, problems: &Problems) {
    let mut is_library_known = None;
    let mut seen: BTreeMap<&Path, ()> = BTreeMap::new();
    let is_tried = !problems.any_error();
    for (plan, model) in with_models(config) {
        // That it has no file was said.
        let Some(path) = config.models.get(&model.name) else { continue };
        let is_new = seen.insert(path, ()).is_none();
        let checked = if is_tried { try_it(config, model, path) } else { scoring::read(model, path).map(drop) };
        let Err(error) = checked else { continue };
        let is_of_library = matches!(error, Error::Library { .. });
        if is_of_library && is_library_known.replace(()).is_some() || !is_new && !is_of_library {
            continue;
        }
        problems.error_help(place(config, plan, model, &error), message(&error), help(&error));
    }
}

fn try_it(config: &Config, model: &Model, path: &Path) -> Result<(), Error> {
    let runtime = Runtime::load(config.onnxruntime.as_deref())?;
    let watch = Watch::start(config.scoring_deadline)?;
    runtime.scorer(model, path, &watch, config.scored_together_max).map(drop)
}

fn with_models(config: &Config) -> impl Iterator<Item = (&StreamPlan, &Model)> {
    config.policy.streams.values().filter_map(|plan| Some((plan, plan.model.as_ref()?)))
}

/// Where that stands which is to be changed.
fn place<'c>(config: &'c Config, plan: &'c StreamPlan, model: &Model, error: &Error) -> &'c Place {
    let of_file = config.places.models.get(&model.name);
    let place = match error {
        Error::Library { .. } => config.places.onnxruntime.as_ref(),
        Error::File { .. } | Error::Unfit { .. } | Error::Runtime { .. } | Error::Late { .. } => of_file,
        Error::Run { .. } | Error::TooMuch { .. } => of_file,
        Error::Hash { .. } | Error::Mismatch { .. } => plan.model_place.as_ref(),
        Error::Thread(_) => None,
    };
    place.unwrap_or(&config.places.gateway)
}

fn message(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Some say themselves what caused them.
        let cause_message = cause.to_string();
        if !message.contains(&cause_message) {
            message = format!("{message}: {cause_message}");
        }
        source = cause.source();
    }
    message
}

fn help(error: &Error) -> &'static str {
    match error {
        Error::Library { .. } => {
            "set `onnxruntime` under [scoring] or ORT_DYLIB_PATH to libonnxruntime.so (1.24 or later); `make demo` and \
             `make test` fetch one"
        }
        Error::File { .. } => "name a regular file that can be read",
        Error::Unfit { .. } => "give another file, with its `sha256`",
        Error::Hash { .. } => "give the declared file; or, if this one is meant, write its sha256 here",
        Error::Mismatch { .. } => "declare the model as it is, or give another file",
        Error::Late { .. } | Error::TooMuch { .. } => "give a smaller model",
        Error::Run { .. } | Error::Runtime { .. } => "ONNX Runtime does not take this file",
        Error::Thread(_) => "give the process more threads",
    }
}
