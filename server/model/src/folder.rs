//! A model as a folder of the files that transformers writes.
//!
//! | file | what it says |
//! |---|---|
//! | `config.json` | the architecture |
//! | `model.safetensors`, or `model.safetensors.index.json` and the shards it names | the weights, in bf16, f16 or f32 |
//! | `tokenizer.json` | the vocabulary and how text is cut |
//! | `tokenizer_config.json` | which tokens begin and end a text, and the chat template; may be missing |
//! | `chat_template.jinja` | the chat template, before that of `tokenizer_config.json`; may be missing |
//! | `generation_config.json` | tokens that end an answer; may be missing |

mod config;
mod names;
mod rope;
mod shards;
mod store;
mod tokenizer;
mod tokenizer_config;
mod words;

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::file::{ModelError, ModelFile};
use crate::json::{self, MAX_CONFIG, MAX_TOKENIZER};
use crate::{ChatTemplate, Tokenizer};
use config::{Config, Ends};
use shards::Shards;
use store::FolderStore;
use tokenizer::Words;
use tokenizer_config::TokenizerConfig;

/// The weights, and where they come in parts, which part has which.
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest `tokenizer_config.json`, bytes: those that list every token once more take some MiB.
const MAX_TOKENIZER_CONFIG: u64 = 16 << 20;

/// The folder that `path` means: itself, or that of a file only such folders have.
pub fn named_by(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let name = path.file_name()?.to_str()?;
    let known = name == "config.json"
        || name.ends_with(".safetensors")
        || name.ends_with(".safetensors.index.json");
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    known.then(|| parent.unwrap_or(Path::new(".")).to_owned())
}

/// Opens and checks the files of `folder`.
pub(crate) fn open(folder: &Path) -> Result<ModelFile, ModelError> {
    let mut print = Fingerprint::default();
    let mut read = |name: &str, most| {
        let text = json::read_optional(folder, name, most)?;
        print.add(name, text.as_deref());
        Ok::<_, ModelError>(text)
    };
    let missing = |name: &str| ModelError::Invalid(format!("{} has no {name}", folder.display()));
    let config = read("config.json", MAX_CONFIG)?.ok_or_else(|| missing("config.json"))?;
    let generation = read("generation_config.json", MAX_CONFIG)?;
    let tokenizer_config = read("tokenizer_config.json", MAX_TOKENIZER_CONFIG)?;
    let template = read("chat_template.jinja", MAX_CONFIG)?;
    let tokenizer = read("tokenizer.json", MAX_TOKENIZER)?;
    let tokenizer = tokenizer.ok_or_else(|| missing("tokenizer.json"))?;

    let config = Config::read(&config)?;
    let shards = Shards::open(folder)?;
    print.shards(&shards)?;
    let store = FolderStore::new(shards, &config)?;
    let plan = config.plan(store.len())?;
    plan.check_tensors(store.names(), |name| store.find(name))?;

    let said = TokenizerConfig::read(tokenizer_config.as_deref(), template.as_deref())?;
    let ends = Ends::read(&config, generation.as_deref())?;
    let vocab = Words { config: &said, ends: &ends, vocab: plan.vocab }.read(&tokenizer)?;
    drop(tokenizer);
    let piece = |id: Option<u32>| {
        id.and_then(|id| vocab.tokens.get(id as usize)).map_or("", String::as_str)
    };
    let template = said
        .template
        .as_deref()
        .map(|text| ChatTemplate::new(text, piece(vocab.bos), piece(vocab.eos)))
        .transpose()
        .map_err(|why| ModelError::Unsupported(why.to_string()))?;
    let tokenizer = Tokenizer::from_vocab(vocab)?;
    let fingerprint = print.finish();
    Ok(ModelFile {
        store: Box::new(store),
        plan,
        tokenizer,
        template,
        name: name(folder),
        fingerprint,
    })
}

/// The folder's name, wherever it was named from.
fn name(folder: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let absolute = || folder.canonicalize().ok().and_then(|path| named(&path));
    named(folder).or_else(absolute).unwrap_or_else(|| "model".to_owned())
}

/// What tells folders apart: every file but the weights whole, and of these the headers, lengths and samples.
#[derive(Default)]
struct Fingerprint(Sha256);

impl Fingerprint {
    fn add(&mut self, name: &str, text: Option<&[u8]>) {
        self.0.update((name.len() as u64).to_le_bytes());
        self.0.update(name);
        // A file that is missing is not an empty one.
        self.0.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        self.0.update(text.unwrap_or_default());
    }

    fn shards(&mut self, shards: &Shards) -> Result<(), ModelError> {
        self.add(INDEX, shards.index.as_deref());
        for shard in &shards.files {
            self.add(&shard.name, Some(shard.tensors.fingerprint()?.as_bytes()));
        }
        Ok(())
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
