use std::sync::Mutex;

use super::estimate;
use crate::vectors::Nearness;
use crate::{
    Budget, Compressed, ContextError, Document, Embedder, LanguageModel, Mode, Policy,
    PreparedCache, Tools, compress,
};

/// Counts letters, so that texts of the same letters are alike, and notes what it was given.
struct Notes {
    sketcher: Option<Box<Self>>,
    texts: Mutex<Vec<String>>,
}

impl Notes {
    fn new() -> Self {
        let sketcher = Self { sketcher: None, texts: Mutex::default() };
        Self { sketcher: Some(Box::new(sketcher)), texts: Mutex::default() }
    }

    /// What was embedded since this was asked last.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().unwrap())
    }
}

impl Embedder for Notes {
    fn identity(&self) -> &str {
        "notes"
    }

    fn dimensions(&self) -> usize {
        26
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        for text in texts {
            let mut vector = [1e-3_f32; 26];
            for letter in text.bytes().map(|byte| byte.to_ascii_lowercase()) {
                if letter.is_ascii_lowercase() {
                    vector[usize::from(letter - b'a')] += 1.0;
                }
            }
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            out.extend(vector.map(|x| x / length));
            self.texts.lock().unwrap().push((*text).to_owned());
        }
        Ok(())
    }

    fn sketcher(&self) -> Option<&dyn Embedder> {
        self.sketcher.as_deref().map(|sketcher| sketcher as &dyn Embedder)
    }
}

/// A token is four bytes.
struct Bytes;

impl LanguageModel for Bytes {
    fn count(&self, text: &str) -> u32 {
        text.len().div_ceil(4) as u32
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        Ok(self.count(context))
    }
}

const LIMIT: usize = 1000;

fn towns() -> Document {
    let town = |n: usize| format!("Town {n} trades in good {n}. Its people number {n}.\n\n");
    let text: String = (100..200).map(town).collect();
    Document { title: Some("Towns".to_owned()), text, ..Document::default() }
}

fn ask(
    documents: &[Document],
    question: &str,
    embedder: &Notes,
    cache: &PreparedCache,
) -> Compressed {
    let policy = Policy {
        mode: Mode::Retrieve,
        budget: Budget::Tokens(60),
        query: question.to_owned(),
        ..Policy::default()
    };
    let (embedder, cache) = (Some(embedder as &dyn Embedder), Some(cache));
    let tools = Tools { embedder, cache, embed_bytes: Some(LIMIT), tenant: "one" };
    compress(documents, &policy, None, &Bytes, tools).unwrap()
}

fn compared(told: &Compressed) -> bool {
    told.report.warnings.iter().any(|warning| warning.contains("were compared"))
}

#[test]
fn of_a_long_document_the_best_sentences_are_embedded_and_each_once() {
    let (embedder, cache) = (Notes::new(), PreparedCache::new(1 << 20));
    let question = "What does Town 142 trade in?";
    let told = ask(&[towns()], question, &embedder, &cache);
    assert!(told.context.text.contains("Town 142 trades") && compared(&told), "{told:?}");
    let texts = embedder.taken();
    let bytes: usize = texts.iter().filter(|text| *text != question).map(String::len).sum();
    assert!((LIMIT / 2..=LIMIT).contains(&bytes), "{bytes}");
    assert!(texts.contains(&"Towns: Town 142 trades in good 142.".to_owned()));
    assert!(texts.contains(&"Towns: Its people number 142.".to_owned()), "a neighbour comes along");

    let again = ask(&[towns()], question, &embedder, &cache);
    assert_eq!((&again.context, &again.report.kept), (&told.context, &told.report.kept));
    assert_eq!(embedder.taken(), [question]);
    ask(&[towns()], "What does Town 177 trade in?", &embedder, &cache);
    let more = embedder.taken();
    assert!(more.len() > 1 && more.iter().all(|text| !texts.contains(text)), "{more:?}");
    let sketched = embedder.sketcher.as_ref().unwrap().taken();
    assert_eq!(sketched.len(), 200 + 3, "every sentence once, and the questions");
}

#[test]
fn stored_and_short_documents_are_embedded_whole() {
    let (embedder, cache) = (Notes::new(), PreparedCache::new(1 << 20));
    let question = "What does Town 142 trade in?";
    let stored = Document { stored: true, ..towns() };
    let told = ask(std::slice::from_ref(&stored), question, &embedder, &cache);
    assert!(!compared(&told) && embedder.taken().len() == 201);
    // Beside one that is too long, too; and what the cache holds of that text does not help the long one.
    let long = Document { title: Some("Other towns".to_owned()), ..towns() };
    let both = ask(&[stored, long], question, &embedder, &cache);
    assert!(compared(&both) && embedder.taken().len() < 40);
    let cold = ask(&[towns()], question, &Notes::new(), &PreparedCache::new(1 << 20));
    let warm = ask(&[towns()], question, &embedder, &cache);
    assert_eq!((&cold.context, &cold.report.kept), (&warm.context, &warm.report.kept));
    assert!(compared(&warm));

    let mut short = towns();
    short.text.truncate(400);
    assert!(!compared(&ask(&[short], question, &embedder, &cache)));
}

#[test]
fn what_is_not_embedded_is_estimated_by_a_line_through_the_rest() {
    let near = |alone: [f32; 4]| {
        let (window, chunk) = (alone.to_vec(), alone.to_vec());
        Nearness { alone: alone.to_vec(), window, chunk, known: Vec::new() }
    };
    let known = vec![true, true, true, false];
    let mut line = Nearness { known: known.clone(), ..near([0.1, 0.3, 0.5, 0.0]) };
    estimate::fill(&mut line, Some(&near([1.0, 2.0, 3.0, 0.5])));
    assert!((line.alone[3] - 0.0).abs() < 1e-6 && line.alone[..3] == [0.1, 0.3, 0.5]);
    assert_eq!((&line.window, &line.chunk), (&line.alone, &line.alone));
    let mut mean = Nearness { known, ..near([0.1, 0.3, 0.5, 0.0]) };
    estimate::fill(&mut mean, None);
    assert!((mean.alone[3] - 0.3).abs() < 1e-6);
    let mut nothing = Nearness { known: vec![false; 4], ..near([0.0; 4]) };
    estimate::fill(&mut nothing, Some(&near([1.0, 2.0, 3.0, 0.5])));
    assert_eq!(nothing.alone, [0.0; 4]);
}
