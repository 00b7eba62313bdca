//! What a rendering may cost besides instructions: bytes made and bytes gone through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};

use super::Message;

/// Bytes a rendering may make or go through, besides what it does with the messages.
const FIXED: u64 = 64 << 20;
/// How often it may go through what the messages say: to trim, to look for a word, to join.
const PASSES: u64 = 64;
/// Counting messages inside a loop over messages takes a quadratic number of steps.
const PER_MESSAGE: u64 = 16 << 10;
/// Bytes of a value in a container.
const VALUE: u64 = 32;
/// Containers in containers: comparing, printing and freeing them recurses.
const MAX_DEPTH: usize = 16;

/// The budget of one rendering.
#[derive(Debug)]
pub(super) struct Meter {
    left: AtomicU64,
}

impl Meter {
    pub(super) fn for_messages(messages: &[Message]) -> Arc<Self> {
        let said = super::said(messages) as u64;
        let budget = FIXED
            .saturating_add(said.saturating_mul(PASSES))
            .saturating_add(PER_MESSAGE.saturating_mul(messages.len() as u64));
        Arc::new(Self { left: AtomicU64::new(budget) })
    }

    /// Takes `bytes` off the budget. Asked before an operation whose result can be much larger
    /// than what it is made from, after any other.
    pub(super) fn charge(&self, bytes: u64) -> Result<(), Error> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_err() {
            self.left.store(0, Ordering::Relaxed);
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        Ok(())
    }

    /// Charges all text in `value`, which is about to be printed.
    pub(super) fn charge_text(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, true)
    }

    /// Charges each value in `value`, and its text if `text`, and refuses deep ones.
    fn walk(&self, value: &Value, depth: usize, text: bool) -> Result<(), Error> {
        if let Some(said) = value.as_str() {
            return self.charge(if text { VALUE + said.len() as u64 } else { VALUE });
        }
        self.charge(VALUE)?;
        let kind = value.kind();
        if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        if depth > 0 && is_namespace(value) {
            // It can change, and so come to hold itself.
            return Err(Error::new(ErrorKind::InvalidOperation, "a namespace inside a value"));
        }
        if depth == MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "values are nested too deep"));
        }
        for item in value.try_iter()? {
            if kind == ValueKind::Map {
                self.walk(&value.get_item(&item)?, depth + 1, text)?;
            }
            self.walk(&item, depth + 1, text)?;
        }
        Ok(())
    }

    /// Charges a text's bytes or a container's values, `of_each` bytes for each.
    fn charge_size(&self, value: &Value, of_each: u64) -> Result<(), Error> {
        match value.as_str() {
            Some(said) => self.charge(said.len() as u64),
            None => self.charge(value.len().unwrap_or(1) as u64 * of_each),
        }
    }
}

/// Adds the filters that [`super::guard`] writes, and charges what is written.
pub(super) fn add(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let filter = |apply: fn(&Meter, Value) -> Result<Value, Error>| {
        let meter = Arc::clone(meter);
        move |value: Value| apply(&meter, value)
    };
    environment.add_filter("_scanned", filter(scanned));
    environment.add_filter("_made", filter(made));
    environment.add_filter("_held", filter(held));
    environment.add_filter("_joined", filter(joined));
    environment.add_filter("_number", filter(number));
    let meter = Arc::clone(meter);
    environment.set_formatter(move |out, state, value| {
        meter.charge_text(value)?;
        // As Python spells them.
        let spelled = match value.kind() {
            ValueKind::Bool if value.is_true() => Value::from("True"),
            ValueKind::Bool => Value::from("False"),
            ValueKind::None => Value::from("None"),
            _ => value.clone(),
        };
        escape_formatter(out, state, &spelled)
    });
}

/// What an operation is about to go through.
fn scanned(meter: &Meter, value: Value) -> Result<Value, Error> {
    meter.charge_size(&value, 1).map(|()| value)
}

/// What an operation made. Views of other sequences become lists: a view of a view of a view is
/// gone through and freed by recursion.
fn made(meter: &Meter, value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return meter.charge_size(&value, VALUE).map(|()| value);
    }
    let items = value.try_iter()?.map(|item| meter.charge(VALUE).map(|()| item));
    Ok(Value::from(items.collect::<Result<Vec<_>, _>>()?))
}

/// What goes into a container.
fn held(meter: &Meter, value: Value) -> Result<Value, Error> {
    if is_namespace(&value) {
        return Err(Error::new(ErrorKind::InvalidOperation, "a namespace inside a value"));
    }
    meter.walk(&value, 0, false).map(|()| value)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

/// What is about to become part of a longer text or list.
fn joined(meter: &Meter, value: Value) -> Result<Value, Error> {
    meter.charge_text(&value).map(|()| value)
}

/// What is multiplied: only numbers, text times a number grows without measure.
fn number(_: &Meter, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => Ok(value),
        other => Err(Error::new(ErrorKind::InvalidOperation, format!("{other} times something"))),
    }
}
