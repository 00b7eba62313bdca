//! Models of known shapes with random weights: nothing is stored, rows are made when they are read.
//!
//! Speed does not depend on what weights are, only on how many there are; and where no weights can be had, the shape can.

mod shape;
mod store;
mod words;

use sha2::{Digest as _, Sha256};

use crate::{ModelError, ModelFile, Tokenizer};
pub use shape::Shape;
use store::RandomStore;

/// A model of `shape`.
pub(crate) fn model(shape: Shape) -> Result<ModelFile, ModelError> {
    let plan = shape.plan()?;
    let store = RandomStore::new(&plan)?;
    let tokenizer = Tokenizer::from_vocab(words::vocab(plan.vocab))?;
    let mut hash = Sha256::new();
    // Another way to make the numbers is another model.
    hash.update([b"random weights 1 ", shape.name().as_bytes()].concat());
    let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{} (random weights)", shape.name());
    Ok(ModelFile { store: Box::new(store), plan, tokenizer, template: None, name, fingerprint })
}
