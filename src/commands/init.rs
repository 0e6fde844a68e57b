//! `bailiwick init`: a minimal deployment that `check` takes and `run` serves, to be changed into one's own.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::Failure;

/// The shipped policies: paths below `policies`, and texts. Without their tests.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

const GATEWAY: &str = include_str!("init/gateway.toml");
const POLICY: &str = include_str!("init/policy.toml");

/// Writes the deployment into a directory, which is made. What to do next, for stdout.
///
/// # Errors
/// When the directory holds anything, or cannot be written.
pub fn init(directory: &Path) -> Result<String, Failure> {
    let shown = directory.display();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => {
            return Err(anyhow::Error::from(error).context(format!("cannot read the directory {shown}")).into());
        }
    };
    if entries > 0 {
        return Err(anyhow!("{shown} is not empty; name an empty or a new directory").into());
    }
    write(directory, "gateway.toml", GATEWAY)?;
    write(directory, "policies/policy.toml", POLICY)?;
    for (path, text) in SHIPPED {
        write(directory, &format!("policies/shipped/{path}"), text)?;
    }
    Ok(format!(
        "{shown}/gateway.toml          where things are\n\
         {shown}/policies/policy.toml  what a record is, what is counted, where it may go\n\
         {shown}/policies/shipped/     laws, regions and data classes: examples for counsel to confirm, not legal advice\n\n\
         Next:\n  bailiwick check -c {shown}/gateway.toml\n  bailiwick run -c {shown}/gateway.toml\n"
    ))
}

fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    let Some(parent) = path.parent() else { bail!("{} has no directory", path.display()) };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Another program may have made it meanwhile.
    let file = fs::File::create_new(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
