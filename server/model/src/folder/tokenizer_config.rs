//! `tokenizer_config.json` and `chat_template.jinja`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::ModelError;
use crate::json::{self, Few};

/// Most templates of a list, of which one is used.
const MAX_TEMPLATES: usize = 32;

/// What the two files say; nothing where they are silent or missing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default)]
    bos_token: Spelling,
    #[serde(default)]
    eos_token: Spelling,
    /// Prompts begin with BOS.
    pub(super) add_bos_token: Option<bool>,
    #[serde(default)]
    chat_template: Templates,
    /// The chat template in use.
    #[serde(skip)]
    pub(super) template: Option<String>,
}

impl TokenizerConfig {
    /// Reads the texts of both files.
    pub(super) fn read(text: Option<&[u8]>, template: Option<&[u8]>) -> Result<Self, ModelError> {
        let mut read: Self = match text {
            Some(text) => json::parse("tokenizer_config.json", text)?,
            None => Self::default(),
        };
        let listed = std::mem::take(&mut read.chat_template).0;
        read.template =
            match template {
                Some(text) => Some(String::from_utf8(text.to_vec()).map_err(|_| {
                    ModelError::Invalid("chat_template.jinja is not UTF-8".to_owned())
                })?),
                None => listed,
            };
        Ok(read)
    }

    /// How BOS is spelled.
    pub(super) fn bos(&self) -> Option<&str> {
        self.bos_token.0.as_deref()
    }

    /// How EOS is spelled.
    pub(super) fn eos(&self) -> Option<&str> {
        self.eos_token.0.as_deref()
    }
}

/// A token: its text, or an object with it.
#[derive(Debug, Default)]
struct Spelling(Option<String>);

impl<'de> Deserialize<'de> for Spelling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Token;
        impl<'de> Visitor<'de> for Token {
            type Value = Spelling;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Spelling, E> {
                Ok(Spelling(Some(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Spelling, E> {
                Ok(Spelling(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spelling, A::Error> {
                let mut content = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "content" {
                        content = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                content
                    .map(|text| Spelling(Some(text)))
                    .ok_or_else(|| Error::missing_field("content"))
            }
        }
        deserializer.deserialize_any(Token)
    }
}

/// The chat template: a text, or the one called `default` of several.
#[derive(Debug, Default)]
struct Templates(Option<String>);

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl<'de> Deserialize<'de> for Templates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Templates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a template or a list of named ones")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Templates, E> {
                Ok(Templates(Some(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Templates, E> {
                Ok(Templates(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Templates, A::Error> {
                let list = serde::de::value::SeqAccessDeserializer::new(list);
                let Few(named) = Few::<Named, MAX_TEMPLATES>::deserialize(list)?;
                let default = named.into_iter().find(|named| named.name == "default");
                Ok(Templates(default.map(|named| named.template)))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
