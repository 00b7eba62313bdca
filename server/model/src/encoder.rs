//! Text encoders of the BERT family, as a folder of the files that sentence-transformers write.

mod config;
mod wordpiece;

use std::path::Path;

use sha2::{Digest as _, Sha256};

pub use config::EncoderConfig;
pub use wordpiece::{Encoding, WordPiece};

use crate::ModelError;
use crate::json::{MAX_CONFIG, MAX_TOKENIZER, read, read_optional};
use crate::safetensors::SafeTensors;

/// An encoder's files, checked: description, tokenizer and the weights' header.
///
/// | file | what it says |
/// |---|---|
/// | `config.json` | the architecture |
/// | `tokenizer.json` | the vocabulary and how text is cut |
/// | `model.safetensors` | the weights |
/// | `sentence_bert_config.json` | the longest text, in tokens; without it, what the positions allow |
/// | `1_Pooling/config.json` | how tokens become one vector; without it, their mean. Nothing else is known here |
#[derive(Debug)]
pub struct EncoderFile {
    config: EncoderConfig,
    tokenizer: WordPiece,
    weights: SafeTensors,
    fingerprint: String,
}

impl EncoderFile {
    /// Opens and checks the files of `folder`. The weights' data is not read, but for the few bytes of each tensor
    /// that the fingerprint takes.
    ///
    /// # Errors
    /// A file is missing, malformed, or describes something that is not computed here.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let config = read(folder, "config.json", MAX_CONFIG)?;
        let length = read_optional(folder, "sentence_bert_config.json", MAX_CONFIG)?;
        let pooling = read_optional(folder, "1_Pooling/config.json", MAX_CONFIG)?;
        let tokens = read(folder, "tokenizer.json", MAX_TOKENIZER)?;
        let mut hash = Sha256::new();
        for part in [&config, &tokens, length.as_ref().unwrap_or(&Vec::new())] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let config = EncoderConfig::read(&config, length.as_deref(), pooling.as_deref())?;
        let tokenizer = WordPiece::read(&tokens, config.max_tokens)?;
        if tokenizer.vocab() > config.vocab {
            return Err(ModelError::Invalid(format!(
                "tokenizer.json has {} tokens, the model {}",
                tokenizer.vocab(),
                config.vocab
            )));
        }
        let weights = SafeTensors::open(&folder.join("model.safetensors"))?;
        hash.update(weights.fingerprint()?);
        let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { config, tokenizer, weights, fingerprint })
    }

    /// The architecture.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &WordPiece {
        &self.tokenizer
    }

    /// The tokenizer alone.
    pub fn into_tokenizer(self) -> WordPiece {
        self.tokenizer
    }

    /// The weights, by the names transformers give them.
    pub fn weights(&self) -> &SafeTensors {
        &self.weights
    }

    /// sha256 over description, tokenizer and samples of the weights, hex: tells encoders apart in cache keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
