//! Files beside weights: JSON of a bounded length, read into what is wanted of it and no more.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::ModelError;

/// Longest `config.json` and the like, bytes.
pub(crate) const MAX_CONFIG: u64 = 1 << 20;
/// Longest `tokenizer.json`, bytes: vocabularies of many languages take some 35 MiB.
pub(crate) const MAX_TOKENIZER: u64 = 64 << 20;

/// The bytes of a file of at most `most`.
pub(crate) fn read(folder: &Path, name: &str, most: u64) -> Result<Vec<u8>, ModelError> {
    let path = folder.join(name);
    let failed = |source| ModelError::Io { path: path.display().to_string(), source };
    // Asked before opening: opening a FIFO would wait for a writer.
    if !std::fs::metadata(&path).map_err(failed)?.is_file() {
        return Err(ModelError::Invalid(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(failed)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(ModelError::Invalid(format!("{name} has more than {most} bytes")));
    }
    Ok(bytes)
}

/// As [`read`]; nothing if there is no such file.
pub(crate) fn read_optional(
    folder: &Path,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>, ModelError> {
    match read(folder, name, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ModelError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What `text`, the contents of the file `name`, says.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(text).map_err(|error| ModelError::Invalid(format!("{name}: {error}")))
}

/// A list of at most `N`: what short texts could list very many of.
#[derive(Debug)]
pub(crate) struct Few<T, const N: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = Few<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut few = Vec::new();
                while let Some(one) = list.next_element()? {
                    if few.len() == N {
                        return Err(A::Error::custom(format!("more than {N} in a list")));
                    }
                    few.push(one);
                }
                Ok(Few(few))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// The entries of an object in the order of the file, doubles and all.
#[derive(Debug)]
pub(crate) struct Entries<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

/// One token id or several, as files name the ends of an answer.
#[derive(Debug, Default)]
pub(crate) struct Ids(pub(crate) Vec<u32>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Most ids of a list: models name a handful.
        const MOST: usize = 64;
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id or a list of them")
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Ids, E> {
                let id =
                    u32::try_from(id).map_err(|_| E::custom(format!("{id} is no token id")))?;
                Ok(Ids(vec![id]))
            }

            fn visit_unit<E: Error>(self) -> Result<Ids, E> {
                Ok(Ids::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Ids, A::Error> {
                let list = serde::de::value::SeqAccessDeserializer::new(list);
                Few::<u32, MOST>::deserialize(list).map(|few| Ids(few.0))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
