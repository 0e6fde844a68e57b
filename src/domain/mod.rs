//! What bailiwick knows, free of IO, async, clocks and wire formats. Imports none of the other modules.

pub mod aggregate;
pub mod batch;
pub mod binary;
pub mod dataset;
pub mod document;
pub mod evidence;
pub mod fact;
pub mod gateway;
pub mod jurisdiction;
pub mod knowledge;
pub mod model;
pub mod name;
pub mod outcome;
pub mod outcomes;
pub mod policy;
pub mod printable;
pub mod producer;
pub mod pseudonym;
pub mod refusal;
pub mod stream;
pub mod time;
pub mod window;
