//! Prepared documents as bytes: little-endian numbers one after the other, every count before what it counts, and every
//! one checked when read.

use std::sync::Arc;

use super::{Prepared, VERSION};
use crate::index::terms::Term;
use crate::index::{Index, Place};
use crate::question::Cues;
use crate::segment::Sentence;
use crate::vectors::Vectors;

pub(super) fn encode(prepared: &Prepared) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(prepared.size()));
    out.0.push(VERSION);
    out.0.push(u8::from(prepared.conversation));
    out.list(&prepared.sentences, |out, sentence| {
        let Sentence { span, section, chunk, block, heading } = sentence;
        [span.start, span.end, *section, *chunk, *block]
            .iter()
            .for_each(|number| out.size(*number));
        out.0.push(u8::from(*heading));
    });
    for sentence in 0..prepared.sentences.len() {
        out.list(prepared.index.terms(sentence), |out, term| out.term(*term));
    }
    out.list(prepared.index.headings(), |out, terms| out.list(terms, |out, term| out.term(*term)));
    for cues in &prepared.cues {
        out.0.push(u8::from(cues.time) | u8::from(cues.number) << 1);
        out.list(&cues.names, |out, name| out.term(*name));
    }
    if let Some(vectors) = &prepared.vectors {
        out.list(vectors.maker.as_bytes(), |out, byte| out.0.push(*byte));
        out.size(vectors.dimensions);
        vectors.scales.iter().for_each(|scale| out.0.extend(scale.to_le_bytes()));
        out.0.extend(vectors.codes.iter().map(|code| code.cast_unsigned()));
    }
    out.0
}

pub(super) fn decode(bytes: &[u8], text: &str) -> Option<Prepared> {
    let mut input = Reader(bytes);
    if input.byte()? != VERSION {
        return None;
    }
    let conversation = input.flag()?;
    let sentences = input.list(|input| {
        let [start, end, section, chunk, block] = [(); 5].map(|()| input.size());
        let span = start?..end?;
        let (section, chunk, block, heading) = (section?, chunk?, block?, input.flag()?);
        text.get(span.clone())?;
        Some(Sentence { span, section, chunk, block, heading })
    })?;
    let in_order = sentences.is_sorted_by(|a, b| {
        a.span.end <= b.span.start && (a.chunk == b.chunk || a.chunk + 1 == b.chunk)
    });
    if !in_order || sentences.first().is_some_and(|first| first.chunk != 0) {
        return None;
    }
    let terms: Vec<Vec<Term>> =
        sentences.iter().map(|_| input.list(Reader::term)).collect::<Option<_>>()?;
    let headings = input.list(|input| input.list(Reader::term))?;
    if sentences.iter().any(|sentence| sentence.section >= headings.len()) {
        return None;
    }
    let places = sentences.iter().map(|s| Place { section: s.section, chunk: s.chunk });
    let index = Index::from_terms(terms.iter().map(Vec::as_slice).zip(places), headings);
    let cue = |_: &Sentence| {
        let flags = input.byte()?;
        let names = input.list(Reader::term)?;
        Some(Cues { time: flags & 1 != 0, number: flags & 2 != 0, names })
    };
    let cues = sentences.iter().map(cue).collect::<Option<_>>()?;
    let vectors = match input.0 {
        [] => None,
        _ => Some(input.vectors(&sentences)?),
    };
    let (sketch, paths) = (None, None);
    let read = Prepared { sentences, index, cues, conversation, vectors, sketch, paths };
    input.0.is_empty().then_some(read)
}

struct Writer(Vec<u8>);

impl Writer {
    fn size(&mut self, number: usize) {
        // Sizes of a text in memory: they fit.
        self.0.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn term(&mut self, term: Term) {
        self.0.extend(term.to_bits().to_le_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.size(items.len());
        items.iter().for_each(|item| each(self, item));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        self.byte().filter(|byte| *byte < 2).map(|byte| byte == 1)
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take()?)).ok()
    }

    fn term(&mut self) -> Option<Term> {
        self.take().map(|bytes| Term::from_bits(u64::from_le_bytes(bytes)))
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.size()?;
        // Each item takes a byte at least, so a false count asks for no more memory than the bytes there are.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(each(self)?);
        }
        Some(items)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn vectors(&mut self, sentences: &[Sentence]) -> Option<Vectors> {
        let maker = String::from_utf8(self.list(Self::byte)?).ok()?;
        let dimensions = self.size().filter(|dimensions| *dimensions > 0)?;
        let scale = |_: &Sentence| self.take().map(f32::from_le_bytes).filter(|s| s.is_finite());
        let scales = sentences.iter().map(scale).collect::<Option<Vec<f32>>>()?;
        let codes = self.bytes(dimensions.checked_mul(sentences.len())?)?;
        let codes = codes.iter().map(|code| code.cast_signed()).collect();
        Some(Vectors::from_codes(Arc::from(maker), dimensions, codes, scales, sentences))
    }
}
