//! Values of a JSON file that know where they stand, so that what is wrong with one can be said precisely.

use std::path::Path;

use serde_json::Value;

use crate::commands::Failure;

/// A value, the file and line it was read from, and its path below that line's value.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    file: &'a Path,
    /// From 1; 0 where the file is one value.
    line: usize,
    path: String,
    value: &'a Value,
}

/// The value of a file that holds one.
pub(super) fn whole(file: &Path, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(format!("{}: not JSON: {error}", file.display())))
}

/// The values of a JSON Lines file and their line numbers; blank lines are passed over.
pub(super) fn lines(file: &Path, text: &str) -> Result<Vec<(usize, Value)>, Failure> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| match serde_json::from_str(line) {
            Ok(value) => Ok((at + 1, value)),
            Err(error) => {
                // The line it speaks of is always the first; the column helps.
                let message = error.to_string().replace(" at line 1 column ", " at column ");
                Err(Failure::new(format!(
                    "{} line {}: not JSON: {message}",
                    file.display(),
                    at + 1
                )))
            }
        })
        .collect()
}

impl<'a> Field<'a> {
    /// The value of a line, or with line 0 of a whole file.
    pub(super) fn root(file: &'a Path, line: usize, value: &'a Value) -> Self {
        Self { file, line, path: String::new(), value }
    }

    /// A member that must be there.
    pub(super) fn get(&self, name: &str) -> Result<Self, Failure> {
        self.find(name).ok_or_else(|| self.child(name, self.value).wrong("is missing"))
    }

    /// A member, unless it is absent or null.
    pub(super) fn find(&self, name: &str) -> Option<Self> {
        self.value.get(name).filter(|value| !value.is_null()).map(|value| self.child(name, value))
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Result<Vec<Self>, Failure> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("must be a list"))?;
        let item =
            |(at, value)| Field { path: format!("{}[{at}]", self.path), value, ..self.clone() };
        Ok(list.iter().enumerate().map(item).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str, Failure> {
        self.value.as_str().ok_or_else(|| self.wrong("must be a text"))
    }

    /// A text with something in it.
    pub(super) fn words(&self) -> Result<&'a str, Failure> {
        let text = self.text()?;
        if text.trim().is_empty() { Err(self.wrong("must not be blank")) } else { Ok(text) }
    }

    /// A whole number from 0, also one in quotes.
    pub(super) fn index(&self) -> Result<usize, Failure> {
        let number = match self.value {
            Value::String(digits) => digits.trim().parse().ok(),
            value => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        number.ok_or_else(|| self.wrong("must be a whole number, 0 or more"))
    }

    pub(super) fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    /// The failure to read this field: `wrong` follows its name.
    pub(super) fn wrong(&self, wrong: &str) -> Failure {
        let file = self.file.display();
        let place =
            if self.line == 0 { file.to_string() } else { format!("{file} line {}", self.line) };
        let path = if self.path.is_empty() { "the value" } else { &self.path };
        Failure::new(format!("{place}: {path} {wrong}"))
    }

    fn child(&self, name: &str, value: &'a Value) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Field { path: format!("{}{dot}{name}", self.path), value, ..self.clone() }
    }
}
