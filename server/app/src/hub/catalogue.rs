//! The catalogue: what can be fetched by name, and what it must be once fetched.

use std::path::Path;

use serde::Deserialize;

use super::error::HubError;

/// Everything that can be fetched by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the order they are listed to people.
    #[serde(rename = "entry")]
    pub entries: Vec<Entry>,
}

/// Something that can be fetched: a model or a document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is for.
    pub kind: Kind,
    /// Canonical name, and the name of its folder in the cache.
    pub name: String,
    /// Other names it answers to.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// One line for people.
    pub about: String,
    /// SPDX id, or the name of the terms.
    pub licence: String,
    /// What must be said to whoever fetches it, beyond the licence's name.
    pub terms: Option<String>,
    /// Wheels its files come out of.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
    /// Files it consists of; the first is the one a caller is given the path of.
    #[serde(rename = "file")]
    pub files: Vec<File>,
}

/// What an [`Entry`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A language model that answers.
    Chat,
    /// A model that turns text into vectors.
    Embedder,
    /// A text.
    Document,
}

impl Kind {
    /// The folder of the cache its entries lie in.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Chat | Self::Embedder => "models",
            Self::Document => "documents",
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedder => "embedder",
            Self::Document => "document",
        }
    }
}

/// One exact version of a Python package that ships as a wheel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name in the index.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Size of the wheel.
    pub bytes: u64,
    /// Of the wheel, lower-case hex.
    pub sha256: String,
}

impl Package {
    /// `name==version`, as pip wants it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }
}

/// One file of an [`Entry`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path under the entry's folder, forward slashes.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// Text between one part and the next.
    #[serde(default)]
    pub between: String,
    /// Joined in order, they are the file.
    pub parts: Vec<Part>,
}

/// A stretch of a [`File`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of a [`Package`] of the same entry.
    pub package: String,
    /// Names from the wheel inwards; all but the last are zip archives.
    pub member: Vec<String>,
}

impl Catalogue {
    /// The catalogue compiled into this binary.
    pub fn builtin() -> Result<Self, HubError> {
        Self::from_toml(include_str!("catalogue.toml"))
    }

    /// Reads a catalogue and checks that it hangs together: names unique, parts' packages listed,
    /// no path that leaves its folder.
    pub fn from_toml(text: &str) -> Result<Self, HubError> {
        let catalogue: Self =
            toml::from_str(text).map_err(|error| HubError::Catalogue(error.to_string()))?;
        catalogue.check().map_err(HubError::Catalogue)?;
        Ok(catalogue)
    }

    /// The entry of that name or alias, whatever its letters' case.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.answers_to(name))
    }

    /// Models, the default one first.
    pub fn models(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind != Kind::Document)
    }

    /// Why `name` was not found, with the names there are and the nearest of them.
    pub fn unknown(&self, name: &str) -> HubError {
        let known: Vec<&str> = self.models().map(Entry::short_name).collect();
        let nearest = self
            .models()
            .flat_map(Entry::names)
            .map(|known| (edits(&name.to_lowercase(), known), known))
            .min()
            // Past half of the name, a suggestion is a guess.
            .filter(|(edits, known)| *edits * 2 <= known.len())
            .map(|(_, known)| known.to_owned());
        HubError::UnknownModel { name: name.to_owned(), known: known.join(", "), nearest }
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        for entry in &self.entries {
            for name in entry.names() {
                if !seen.insert(name.to_lowercase()) {
                    return Err(format!("{name:?} names two entries"));
                }
            }
            if entry.files.is_empty() {
                return Err(format!("{:?} has no file", entry.name));
            }
            for file in &entry.files {
                for part in &file.parts {
                    if entry.package(&part.package).is_none() || part.member.is_empty() {
                        return Err(format!("{:?} has a part that comes from nowhere", file.name));
                    }
                }
            }
            let paths = entry.files.iter().map(|file| &file.name).chain([&entry.name]);
            for path in paths {
                let inside = Path::new(path)
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
                if !inside || path.is_empty() {
                    return Err(format!("{path:?} is not a plain relative path"));
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Canonical name, then aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    /// The name people type: the first alias, or the canonical name.
    pub fn short_name(&self) -> &str {
        self.aliases.first().unwrap_or(&self.name)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.names().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_hangs_together() {
        let catalogue = Catalogue::builtin().unwrap();
        let smollm2 = catalogue.find("SmolLM2").unwrap();
        assert_eq!(smollm2.name, "smollm2-135m-instruct");
        assert_eq!(
            catalogue.models().next().unwrap().name,
            smollm2.name,
            "the default comes first"
        );
        for entry in &catalogue.entries {
            let hashes = entry.packages.iter().map(|package| &package.sha256);
            for hash in hashes.chain(entry.files.iter().map(|file| &file.sha256)) {
                assert_eq!(hash.len(), 64, "{hash} of {}", entry.name);
                assert!(hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
            }
        }
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest_one() {
        let catalogue = Catalogue::builtin().unwrap();
        let HubError::UnknownModel { nearest, known, .. } = catalogue.unknown("smolm2") else {
            panic!("another error");
        };
        assert_eq!(nearest.as_deref(), Some("smollm2"));
        assert!(known.contains("gemma3"));
        let HubError::UnknownModel { nearest, .. } = catalogue.unknown("gpt-oss-120b") else {
            panic!("another error");
        };
        assert_eq!(nearest, None);
    }

    #[test]
    fn a_catalogue_that_would_write_outside_its_folder_is_refused() {
        let text =
            include_str!("catalogue.toml").replace("\"config.json\"\nbytes", "\"../x\"\nbytes");
        let error = Catalogue::from_toml(&text).unwrap_err();
        assert!(error.to_string().contains("../x"), "{error}");
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
