//! A document made ready for questions: cut up, its terms indexed, its sentences turned into vectors.
//!
//! None of it depends on a question, a budget or the served model, so that a document is prepared once and asked many
//! times: [`PreparedCache`] keeps what was prepared, under a key that no two tenants share.

mod bytes;
mod cache;
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
/// Texts given to the embedder at once; between two such calls the caller may end the work.
const EMBED_AT_ONCE: usize = 256;
/// Most bytes of title and headings before a sentence when it is embedded.
const MAX_PATH_BYTES: usize = 160;
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
    /// `None`: prepared without an embedder.
    pub(crate) vectors: Option<Vectors>,
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
        let clock = Instant::now();
        let embed = |embedder| embed(document, &cut, embedder, proceed);
        let vectors = embedder.map(embed).transpose()?;
        times.embed += clock.elapsed().as_secs_f64();
        Ok(Self { sentences: cut.sentences, index, cues, conversation, vectors })
    }

    /// [`Embedder::identity`] of what made its vectors; empty if it has none.
    #[must_use]
    pub fn maker(&self) -> &str {
        self.vectors.as_ref().map_or("", |vectors| &vectors.maker)
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
        let vectors = self.vectors.as_ref().map_or(0, |vectors| vectors.codes.len());
        // Sentence, place, cues, end, scale and lengths of each sentence.
        self.sentences.len() * 160 + self.index.size() + names * 8 + vectors
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

/// The vector of each sentence, read after its title and headings: they say what "it" is about.
fn embed(
    document: &Document,
    cut: &Segments,
    embedder: &dyn Embedder,
    proceed: &mut dyn FnMut() -> Result<(), ContextError>,
) -> Result<Vectors, ContextError> {
    let paths: Vec<String> = cut
        .sections
        .iter()
        .map(|section| {
            let mut path = path(document, cut, section).join(": ");
            path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
            path
        })
        .collect();
    let text = |sentence: &Sentence| match (&*paths[sentence.section], sentence.heading) {
        ("", _) => document.text[sentence.span.clone()].to_owned(),
        // A heading line stands in its own path.
        (path, true) => path.to_owned(),
        (path, false) => format!("{path}: {}", &document.text[sentence.span.clone()]),
    };
    // "Yes." is said often in a meeting, and means the same each time.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut distinct: Vec<String> = Vec::new();
    let mut place_of = Vec::with_capacity(cut.sentences.len());
    for sentence in &cut.sentences {
        let text = text(sentence);
        let next = places.len();
        place_of.push(*places.entry(text.clone()).or_insert(next));
        if places.len() > next {
            distinct.push(text);
        }
    }
    let dimensions = embedder.dimensions();
    let mut vectors = Vec::with_capacity(distinct.len() * dimensions);
    for texts in distinct.chunks(EMBED_AT_ONCE) {
        proceed()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        embedder.embed(&texts, &mut vectors)?;
    }
    if vectors.len() != distinct.len() * dimensions {
        let message = "the embedder did not give a vector for each text".to_owned();
        return Err(ContextError::Embedder { message });
    }
    let mut all = Vec::with_capacity(place_of.len() * dimensions);
    for place in place_of {
        all.extend_from_slice(&vectors[place * dimensions..][..dimensions]);
    }
    Ok(Vectors::new(embedder.identity().into(), dimensions, &all, &cut.sentences))
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
