//! A document made ready for questions: cut up, its terms indexed, its sentences turned into vectors.
//!
//! None of it depends on a question, a budget or the served model, so that a document is prepared once and asked many
//! times: [`PreparedCache`] keeps what was prepared, under a key that no two tenants share.

mod bytes;
mod cache;
mod embed;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use sha2::{Digest, Sha256};

pub use cache::PreparedCache;

use crate::index::{Index, Place};
use crate::question::Cues;
use crate::segment::{Section, Segments, Sentence, segment_document};
use crate::vectors::Vectors;
use crate::{ContextError, Document, Element, ElementKind, Embedder, StageTimes};

/// Changes whenever the same document would be prepared otherwise (cutting, terms, cues): what was kept before is then
/// not found.
const VERSION: u8 = 1;
/// Fewest lines of a text that is taken for a conversation.
const MIN_TURNS: usize = 8;
/// Longest name of a speaker, in bytes.
const MAX_SPEAKER_BYTES: usize = 48;

/// A document ready for questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) index: Index,
    /// By sentence.
    pub(crate) cues: Vec<Cues>,
    /// Most of its lines are turns of speakers.
    pub(crate) conversation: bool,
    /// `None`: prepared without an embedder. Of a long document, some sentences may have none yet.
    pub(crate) vectors: Option<Vectors>,
    /// Vectors of [`Embedder::sketcher`], once they were needed.
    pub(crate) sketch: Option<Vectors>,
    /// By section: the title and headings that a sentence is embedded under. `None`: not read off the text yet.
    pub(crate) paths: Option<Vec<String>>,
}

/// Tells prepared documents apart: what was prepared, by what, for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PreparedKey {
    /// Of the tenant.
    tenant: [u8; 8],
    /// Of everything, the tenant too.
    digest: [u8; 32],
}

impl PreparedKey {
    /// The key of `document` as prepared for `tenant` with the embedder called `maker` (empty: without one).
    #[must_use]
    pub fn new(tenant: &str, document: &Document, maker: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update([VERSION, document.format as u8]);
        let title = document.title.as_deref().unwrap_or("");
        for part in [tenant, maker, title, &document.text] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        for Element { kind, span } in document.elements.iter().flat_map(|elements| elements.iter())
        {
            let kind = match kind {
                ElementKind::Paragraph => [0, 0],
                ElementKind::Heading(level) => [1, *level],
                ElementKind::Lines => [2, 0],
            };
            hash.update(kind);
            hash.update((span.start as u64).to_le_bytes());
            hash.update((span.end as u64).to_le_bytes());
        }
        Self { tenant: Self::tenant(tenant), digest: hash.finalize().into() }
    }

    fn tenant(name: &str) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(name).into();
        std::array::from_fn(|at| digest[at])
    }
}

impl Prepared {
    /// Prepares `document`; with `embedder`, its sentences get vectors. `proceed` is asked now and then whether anybody
    /// still waits.
    ///
    /// # Errors
    /// What `proceed` or the embedder say.
    pub fn new(
        document: &Document,
        embedder: Option<&dyn Embedder>,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
    ) -> Result<Self, ContextError> {
        Self::timed(document, embedder, proceed, &mut StageTimes::default())
    }

    /// As [`new`](Self::new), adding to the times of the stages.
    pub(crate) fn timed(
        document: &Document,
        embedder: Option<&dyn Embedder>,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
        times: &mut StageTimes,
    ) -> Result<Self, ContextError> {
        let clock = Instant::now();
        let cut = segment_document(document);
        times.segment += clock.elapsed().as_secs_f64();
        proceed()?;
        let clock = Instant::now();
        let index = index(document, &cut);
        let cues = cut.sentences.iter().map(|s| Cues::new(&document.text[s.span.clone()]));
        let cues = cues.collect();
        let conversation = is_conversation(&document.text);
        times.index += clock.elapsed().as_secs_f64();
        let paths = Some(embed::paths(document, &cut));
        let sentences = cut.sentences;
        let mut prepared =
            Self { sentences, index, cues, conversation, vectors: None, sketch: None, paths };
        if let Some(embedder) = embedder {
            let clock = Instant::now();
            prepared.embed(document, embedder, |_| true, proceed)?;
            times.embed += clock.elapsed().as_secs_f64();
        }
        Ok(prepared)
    }

    /// [`Embedder::identity`] of what made its vectors; empty if it has none.
    #[must_use]
    pub fn maker(&self) -> &str {
        self.vectors.as_ref().map_or("", |vectors| &vectors.maker)
    }

    /// Whether all its sentences have vectors.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        !self.lacks(|_| true)
    }

    /// Its chunks in order: runs of whole sentences of about 128 tokens of English, at most 200. With each, if there are
    /// vectors, that of its meaning, of length 1.
    pub fn chunks(&self) -> impl Iterator<Item = (Range<usize>, Option<Vec<f32>>)> {
        let mut first = 0;
        self.sentences.chunk_by(|a, b| a.chunk == b.chunk).map(move |chunk| {
            let sentences = first..first + chunk.len();
            first = sentences.end;
            let span = chunk[0].span.start..chunk[chunk.len() - 1].span.end;
            (span, self.vectors.as_ref().map(|vectors| vectors.sum(sentences)))
        })
    }

    /// The form in which it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        bytes::encode(self)
    }

    /// What [`encode`](Self::encode) gave, for the document it was made of. `None` for anything else: bytes of another
    /// version, and bytes that do not fit `document`, whatever they hold.
    #[must_use]
    pub fn decode(bytes: &[u8], document: &Document) -> Option<Self> {
        bytes::decode(bytes, &document.text)
    }

    /// Memory it takes, in bytes, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        let names: usize = self.cues.iter().map(|cues| cues.names.len()).sum();
        let vectors = self.vectors.iter().chain(&self.sketch).map(|v| v.codes.len()).sum::<usize>();
        let paths: usize = self.paths.iter().flatten().map(|path| 24 + path.len()).sum();
        // Sentence, place, cues, end, scales and lengths of each sentence.
        self.sentences.len() * 160 + self.index.size() + names * 8 + vectors + paths
    }
}

/// Indexes every sentence with its document's title and the headings it stands under.
fn index(document: &Document, cut: &Segments) -> Index {
    let mut index = Index::default();
    for section in &cut.sections {
        index.push_section(path(document, cut, section));
    }
    for Sentence { span, section, chunk, .. } in &cut.sentences {
        let place = Place { section: *section, chunk: *chunk };
        index.push(&document.text[span.clone()], place);
    }
    index
}

/// The title and the headings a section stands under, its own last.
fn path<'a>(document: &'a Document, cut: &Segments, section: &Section) -> Vec<&'a str> {
    let mut path = vec![&document.text[section.heading.clone()]];
    let mut parent = section.parent;
    while let Some(above) = parent.map(|above| &cut.sections[above]) {
        path.push(&document.text[above.heading.clone()]);
        parent = above.parent;
    }
    path.push(document.title.as_deref().unwrap_or(""));
    path.reverse();
    path.retain(|heading| !heading.is_empty());
    path
}

/// Whether most lines are turns of a conversation, `Name: what is said`, of speakers who come back.
fn is_conversation(text: &str) -> bool {
    let (mut lines, mut turns) = (0, 0);
    let mut speakers: HashMap<&str, usize> = HashMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        lines += 1;
        let Some((speaker, said)) = line.split_once(':') else { continue };
        let named = (1..=MAX_SPEAKER_BYTES).contains(&speaker.len())
            && speaker.starts_with(char::is_alphabetic)
            && !speaker.contains(['.', '?', '!', ',', ';'])
            && said.starts_with(char::is_whitespace);
        if named {
            turns += 1;
            *speakers.entry(speaker).or_default() += 1;
        }
    }
    turns >= MIN_TURNS && turns * 10 >= lines * 6 && speakers.len() * 2 <= turns
}
