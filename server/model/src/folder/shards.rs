//! The files that hold the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::{INDEX, WEIGHTS};
use crate::ModelError;
use crate::json::{self, Entries};
use crate::safetensors::SafeTensors;

/// Most shards. All are kept open; the largest known models have some two hundred.
const MAX_SHARDS: usize = 512;
/// Longest index, bytes: some hundred for each tensor.
const MAX_INDEX: u64 = 16 << 20;

/// All files of the weights, opened and checked against the index that names them.
#[derive(Debug)]
pub(super) struct Shards {
    /// In order of their names.
    pub(super) files: Vec<Shard>,
    /// The text of the index, where there is one.
    pub(super) index: Option<Vec<u8>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Shard {
    /// Its name in the folder.
    pub(super) name: String,
    pub(super) tensors: SafeTensors,
}

#[derive(Deserialize)]
struct Index {
    weight_map: Entries<String>,
}

impl Shards {
    /// Opens the weights of `folder`: the one file, or else the shards of the index, each tensor of which is where the
    /// index says and nowhere else.
    pub(super) fn open(folder: &Path) -> Result<Self, ModelError> {
        if folder.join(WEIGHTS).exists() {
            return Ok(Self { files: vec![Shard::open(folder, WEIGHTS)?], index: None });
        }
        let Some(text) = json::read_optional(folder, INDEX, MAX_INDEX)? else {
            let place = folder.display();
            return Err(ModelError::Invalid(format!("{place} has neither {WEIGHTS} nor {INDEX}")));
        };
        let Index { weight_map: Entries(entries) } = json::parse(INDEX, &text)?;
        let mut places = BTreeMap::new();
        for (tensor, shard) in entries {
            if places.insert(tensor.clone(), shard).is_some() {
                return Err(invalid(format!("names a place for {tensor:?} twice")));
            }
        }
        let names = places.values().map(String::as_str).collect::<BTreeSet<_>>();
        if names.is_empty() || names.len() > MAX_SHARDS {
            return Err(invalid(format!("names {} files, not 1 to {MAX_SHARDS}", names.len())));
        }
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            // Links are followed: the hub's cache is made of them. Names must not lead elsewhere.
            let mut parts = Path::new(name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !plain || !name.ends_with(".safetensors") {
                return Err(invalid(format!("names {name:?}, which is no shard of this folder")));
            }
            files.push(Shard::open(folder, name)?);
        }
        check(&places, &files)?;
        Ok(Self { files, index: Some(text) })
    }
}

impl Shard {
    fn open(folder: &Path, name: &str) -> Result<Self, ModelError> {
        let tensors = SafeTensors::open(&folder.join(name)).map_err(|error| match error {
            ModelError::Invalid(why) => ModelError::Invalid(format!("{name}: {why}")),
            other => other,
        })?;
        Ok(Self { name: name.to_owned(), tensors })
    }
}

fn invalid(why: String) -> ModelError {
    ModelError::Invalid(format!("{INDEX} {why}"))
}

/// Whether index and shards name the same tensors in the same places.
fn check(places: &BTreeMap<String, String>, files: &[Shard]) -> Result<(), ModelError> {
    let mut found = 0;
    for shard in files {
        for (tensor, _) in shard.tensors.iter() {
            let place = places.get(tensor);
            if place != Some(&shard.name) {
                let shard = &shard.name;
                return Err(invalid(match place {
                    Some(place) => {
                        format!("has {tensor:?} in {place:?}, but it is in {shard:?} too")
                    }
                    None => format!("does not name {tensor:?}, which is in {shard:?}"),
                }));
            }
            found += 1;
        }
    }
    if found != places.len() {
        let lost = places.iter().find(|(tensor, place)| {
            let shard = files.iter().find(|shard| shard.name == **place);
            shard.is_none_or(|shard| shard.tensors.get(tensor).is_none())
        });
        let (tensor, place) = lost.map_or(("a tensor", ""), |(t, p)| (t.as_str(), p.as_str()));
        return Err(invalid(format!("has {tensor:?} in {place:?}, which lacks it")));
    }
    Ok(())
}
