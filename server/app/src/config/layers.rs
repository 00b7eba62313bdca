//! Laying one table of settings over another.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULT};

/// Before every variable's name.
const PREFIX: &str = "PITH";

/// The default, `file`, `environment` and `flags`, later ones over earlier ones.
pub(super) fn merge(
    file: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
    flags: Table,
) -> Result<Config, ConfigError> {
    let mut merged = parse("the default settings", DEFAULT)?;
    let mut origin = "the default settings".to_owned();
    if let Some(path) = file {
        origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: origin.clone(), source })?;
        lay(&mut merged, parse(&origin, &text)?);
    }
    // Checked before the environment joins, so that an error names the file it stands in.
    let _: Config = typed(merged.clone(), &origin)?;
    from_environment(&mut merged, &environment)?;
    lay(&mut merged, flags);
    typed(merged, "flags")
}

fn parse(origin: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| syntax(origin, &error))
}

fn typed(table: Table, origin: &str) -> Result<Config, ConfigError> {
    table.try_into().map_err(|error: toml::de::Error| syntax(origin, &error))
}

fn syntax(origin: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax {
        origin: origin.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    }
}

/// Tables merge, everything else replaces.
fn lay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Replaces each setting that has a variable; a setting's present type says how the variable is read.
fn from_environment(
    merged: &mut Table,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<(), ConfigError> {
    for (section, value) in merged {
        let Value::Table(settings) = value else { continue };
        for (key, value) in settings {
            let name = format!("{PREFIX}_{section}_{key}").to_uppercase();
            let Some(text) = environment(&name) else { continue };
            let wrong = |what: &str| ConfigError::Syntax {
                origin: name.clone(),
                message: format!("{text:?} is not {what}"),
            };
            *value = match value {
                Value::Integer(_) => {
                    Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?)
                }
                Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
                Value::Boolean(_) => {
                    Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?)
                }
                _ => Value::String(text),
            };
        }
    }
    Ok(())
}
