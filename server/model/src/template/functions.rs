//! What templates written for transformers expect beyond Jinja itself.

use std::time::SystemTime;

use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;

pub(super) fn add(environment: &mut Environment<'_>, _clock: fn() -> SystemTime) {
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
}

fn raise_exception(reason: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}
