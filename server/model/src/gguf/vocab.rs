//! The tokenizer's fields.

use super::Metadata;
use crate::ModelError;
use crate::tokenizer::Vocab;

/// Moves the tokenizer's fields out of `metadata`. Whether they make sense together is for
/// [`crate::Tokenizer::from_vocab`] to say.
pub(crate) fn read_vocab(metadata: &mut Metadata) -> Result<Vocab, ModelError> {
    let Some(tokens) = metadata.take_strings("tokenizer.ggml.tokens")? else {
        return Err(ModelError::Invalid("tokenizer.ggml.tokens is missing".to_owned()));
    };
    let merges = metadata.take_strings("tokenizer.ggml.merges")?.unwrap_or_default();
    let metadata = &*metadata;
    let Some(model) = metadata.str("tokenizer.ggml.model")? else {
        return Err(ModelError::Invalid("tokenizer.ggml.model is missing".to_owned()));
    };
    let id = |name: &str| {
        // Some writers say "none" with -1.
        let id = metadata.u32(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok::<_, ModelError>(id.filter(|&id| id != u32::MAX))
    };
    Ok(Vocab {
        model: model.to_owned(),
        pre: metadata.str("tokenizer.ggml.pre")?.map(str::to_owned),
        tokens,
        scores: metadata.f32s("tokenizer.ggml.scores")?.unwrap_or_default().to_vec(),
        token_types: metadata.i32s("tokenizer.ggml.token_type")?.unwrap_or_default().to_vec(),
        merges,
        bos: id("bos")?,
        eos: id("eos")?,
        unk: id("unknown")?,
        pad: id("padding")?,
        eot: id("eot")?,
        eom: id("eom")?,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?,
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?,
        remove_extra_whitespaces: metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?,
        ends: Vec::new(),
        whole_words: None,
    })
}
