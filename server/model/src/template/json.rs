//! `tojson` as transformers defines it: Python's `json.dumps` without escapes beyond ASCII, where
//! Jinja's own would escape `<`, `>`, `&` and `'` for HTML.

use std::sync::Arc;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::meter::Meter;

/// Widest indentation of a level.
const MAX_INDENT: usize = 8;

pub(super) fn add(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let meter = Arc::clone(meter);
    environment.add_filter("tojson", move |value: Value, options: Kwargs| {
        // Spelled out by templates, and the only behaviour there is.
        options.get::<Option<bool>>("ensure_ascii")?;
        let indent = options.get::<Option<usize>>("indent")?;
        options.assert_all_used()?;
        if indent.is_some_and(|indent| indent > MAX_INDENT) {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson indents too far"));
        }
        // Bounds depth too.
        meter.charge_text(&value)?;
        let mut writer = Writer { out: String::new(), indent, meter: &meter };
        writer.value(&value, 0)?;
        Ok(writer.out)
    });
}

struct Writer<'a> {
    out: String,
    indent: Option<usize>,
    meter: &'a Meter,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.items("[", items, "]", depth)?;
            }
            ValueKind::Map => {
                let item = |key: Value| Ok((Some(key.to_string()), value.get_item(&key)?));
                let items = value.try_iter()?.map(item).collect::<Result<_, Error>>()?;
                self.items("{", items, "}", depth)?;
            }
            other => {
                let why = format!("{other} cannot be written as JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        open: &str,
        items: Vec<(Option<String>, Value)>,
        close: &str,
        depth: usize,
    ) -> Result<(), Error> {
        self.out.push_str(open);
        let empty = items.is_empty();
        for (index, (key, value)) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            self.line(depth + 1)?;
            if let Some(key) = key {
                self.text(&key);
                self.out.push_str(": ");
            }
            self.value(&value, depth + 1)?;
        }
        if !empty {
            self.line(depth)?;
        }
        self.out.push_str(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = self.indent {
            self.meter.charge((indent * depth) as u64)?;
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        // Python escapes the same characters in the same way.
        self.out.push_str(&serde_json::Value::from(text).to_string());
    }
}
