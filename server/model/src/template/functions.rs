//! What templates written for transformers expect beyond Jinja itself, and what they do not get.

use std::sync::Arc;
use std::time::SystemTime;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::meter::Meter;
use super::{clock, json};

/// Filters whose results can be much larger than what they are given, or views of it, and which no
/// known chat template uses.
const REFUSED: [&str; 8] =
    ["batch", "chain", "format", "groupby", "indent", "pprint", "slice", "zip"];

/// What does not depend on the rendering.
pub(super) fn add(environment: &mut Environment<'_>, now: fn() -> SystemTime) {
    for filter in REFUSED {
        environment.remove_filter(filter);
    }
    // Prints whatever the environment holds.
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| clock::format(now(), format));
}

/// What is charged to the rendering.
pub(super) fn add_metered(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let shared = Arc::clone(meter);
    environment.add_filter("replace", move |text: &str, from: &str, to: &str| {
        replace(&shared, text, from, to)
    });
    let shared = Arc::clone(meter);
    environment.add_filter("join", move |items: Value, separator: Option<&str>| {
        join(&shared, &items, separator.unwrap_or_default())
    });
    json::add(environment, meter);
    let shared = Arc::clone(meter);
    environment.set_unknown_method_callback(move |state, value, method, arguments| {
        call_method(&shared, state, value, method, arguments)
    });
}

fn raise_exception(reason: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}

/// Python's methods of strings, lists and dictionaries.
fn call_method(
    meter: &Meter,
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str);
    if value.kind() == ValueKind::String
        && let Some(said) = value.as_str()
    {
        match (method, arguments.len()) {
            ("replace", 2) => {
                if let (Some(from), Some(to)) = (text(0), text(1)) {
                    return replace(meter, said, from, to).map(Value::from);
                }
            }
            ("join", 1) => return join(meter, &arguments[0], said).map(Value::from),
            // Widths in a format make text of any length; `replace` with a count is minijinja's.
            ("format" | "replace", _) => return Err(Error::from(ErrorKind::UnknownMethod)),
            _ => {}
        }
    }
    unknown_method_callback(state, value, method, arguments)
}

fn replace(meter: &Meter, text: &str, from: &str, to: &str) -> Result<String, Error> {
    // An empty `from` is found between all characters.
    let found = text.matches(from).count() as u64;
    meter.charge((text.len() as u64).saturating_add(found.saturating_mul(to.len() as u64)))?;
    Ok(text.replace(from, to))
}

fn join(meter: &Meter, items: &Value, separator: &str) -> Result<String, Error> {
    let mut joined = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        meter.charge_text(&item)?;
        meter.charge(separator.len() as u64)?;
        if index > 0 {
            joined.push_str(separator);
        }
        match item.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&item.to_string()),
        }
    }
    Ok(joined)
}
