//! Questions over documents, and where their answers stand. One module a format; every reader names the line and
//! the field it cannot read.

use std::path::{Path, PathBuf};

use pith_context::{Document, Span};

use crate::commands::Failure;
use crate::commands::random::Random;

mod field;
mod nq;
mod own;
mod qmsum;
#[cfg(test)]
mod tests;
mod xquad;

pub(super) use nq::{DENSE_DISTRACTORS, LEXICAL_DISTRACTORS, distract};

/// The data sets whose format is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// XQuAD or any file in the format of SQuAD 1.1: all articles are one haystack.
    Xquad,
    /// Natural Questions with their gold passage, of "Lost in the Middle".
    Nq,
    /// QMSum: queries about meetings with the turns that answer them.
    Qmsum,
    /// JSON Lines of one's own, see [`own`].
    Own,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Xquad => "xquad",
            Self::Nq => "nq",
            Self::Qmsum => "qmsum",
            Self::Own => "own",
        }
    }

    /// What `--dataset` and `--path` say. A name that is none of a data set is the path of a file.
    pub(super) fn of(name: &str, path: Option<&Path>) -> Result<(Self, PathBuf), Failure> {
        let kind = match name {
            "xquad" => Self::Xquad,
            "nq" => Self::Nq,
            "qmsum" => Self::Qmsum,
            "file" => Self::Own,
            file if path.is_none() => return Ok((Self::Own, PathBuf::from(file))),
            _ => {
                return Err(Failure::usage(format!(
                    "--dataset {name:?} is none of xquad, nq, qmsum"
                ))
                .hint("for a file of your own, give its path to --dataset and leave --path out"));
            }
        };
        match path {
            Some(path) => Ok((kind, path.to_owned())),
            None => Err(Failure::usage(format!("--dataset {name} needs --path"))
                .hint("the data is not part of pith; --path says where the file lies")),
        }
    }
}

/// A question and its gold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) text: String,
    /// Index into [`Dataset::haystacks`].
    pub(super) haystack: usize,
    /// Right answers, any of them; may be empty.
    pub(super) answers: Vec<String>,
    /// Where an answer or its evidence stands in the haystack's documents, sorted; may be empty.
    pub(super) spans: Vec<Span>,
}

/// Questions over haystacks of documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Dataset {
    pub(super) haystacks: Vec<Vec<Document>>,
    pub(super) questions: Vec<Question>,
}

impl Dataset {
    /// Reads a file.
    pub(super) fn read(kind: Kind, path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", path.display()))
                .hint("check the path; the file must be UTF-8 text")
        })?;
        let dataset = match kind {
            Kind::Xquad => xquad::read(path, &text),
            Kind::Nq => nq::read(path, &text),
            Kind::Qmsum => qmsum::read(path, &text),
            Kind::Own => own::read(path, &text),
        }?;
        if dataset.questions.is_empty() {
            return Err(Failure::new(format!("{} holds no question", path.display())));
        }
        Ok(dataset)
    }

    /// Keeps `most` questions, drawn by `seed` and in their order; 0 is all. Haystacks stay whole.
    pub(super) fn sample(&mut self, most: usize, seed: u64) {
        if most == 0 || most >= self.questions.len() {
            return;
        }
        let mut drawn = drawn(self.questions.len(), most, seed).into_iter().peekable();
        let mut at = 0;
        self.questions.retain(|_| {
            at += 1;
            drawn.next_if_eq(&(at - 1)).is_some()
        });
    }
}

/// `most` of the numbers below `of`, drawn by `seed`, in order.
pub(super) fn drawn(of: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..of).collect();
    shuffle(&mut numbers, &mut Random::new(seed, SAMPLE_SALT));
    numbers.truncate(most);
    numbers.sort_unstable();
    numbers
}

/// Tells the drawing of questions from other uses of a seed.
const SAMPLE_SALT: u64 = 0x5a;

/// Fisher and Yates.
pub(super) fn shuffle<T>(values: &mut [T], random: &mut Random) {
    for last in (1..values.len()).rev() {
        let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
        values.swap(last, random.below(bound) as usize);
    }
}

/// The byte at which character `at` of `text` begins; its length for the character past the last. `None` beyond.
fn byte_of(text: &str, at: usize) -> Option<usize> {
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(at)
}
