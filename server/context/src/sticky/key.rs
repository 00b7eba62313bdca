//! What a turn of a conversation is remembered under.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{Document, Element, ElementKind, Format, Fusion, Hint, HintKind, Mode, Order, Policy};

/// A conversation up to its last question.
#[derive(Debug, Clone, Copy)]
pub struct Chat<'a> {
    /// Whose it is: nothing is remembered across tenants.
    pub tenant: &'a str,
    /// Tells models apart: another template or tokenizer makes another prompt.
    pub model: &'a str,
    /// Role and content of every message, oldest first; the last is the user's.
    pub messages: &'a [(&'a str, &'a str)],
}

/// Names what was sent up to one turn of a conversation: a digest of its tenant, model, documents, messages, and of
/// what the policy says about choosing (all but budget and query, which may change from turn to turn).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SelectionKey {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// SHA-256 of everything named above, the tenant too.
    pub digest: [u8; 32],
}

/// The user's messages, oldest first: the index of each, and the key of the conversation up to it.
pub(super) fn turns(
    chat: &Chat<'_>,
    documents: &[Document],
    policy: &Policy,
) -> Vec<(usize, SelectionKey)> {
    let tenant: Arc<str> = chat.tenant.into();
    let mut hash = Fields(Sha256::new());
    hash.text("pith sticky selection 1");
    hash.text(chat.tenant);
    hash.text(chat.model);
    hash.policy(policy);
    hash.number(documents.len() as u64);
    documents.iter().for_each(|document| hash.document(document));
    let mut turns = Vec::new();
    for (index, (role, content)) in chat.messages.iter().enumerate() {
        hash.text(role);
        hash.text(content);
        if *role == "user" {
            let digest = hash.0.clone().finalize().into();
            turns.push((index, SelectionKey { tenant: Arc::clone(&tenant), digest }));
        }
    }
    turns
}

/// Hashes fields so that no two sequences of them look alike: each text after its length.
struct Fields(Sha256);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text);
    }

    fn option(&mut self, number: Option<u32>) {
        self.number(number.map_or(u64::MAX, u64::from));
    }

    // Every field is named in the next two, so that a new one is not forgotten.

    fn policy(&mut self, policy: &Policy) {
        let Policy {
            mode,
            budget: _,
            query: _,
            neighbor_window,
            top_k,
            min_score,
            lexical_weight,
            dense_weight,
            fusion,
            order,
        } = policy;
        self.number(match mode {
            Mode::None => 0,
            Mode::Retrieve => 1,
        });
        self.option(*neighbor_window);
        self.option(*top_k);
        for number in [min_score, lexical_weight, dense_weight] {
            self.option(number.map(f32::to_bits));
        }
        self.number(match fusion {
            Fusion::Scores => 0,
            Fusion::Ranks => 1,
        });
        self.number(match order {
            Order::Original => 0,
            Order::Relevance => 1,
            Order::Edges => 2,
        });
    }

    fn document(&mut self, document: &Document) {
        // Whether it is stored decides on what is embedded at once, not on what it says.
        let Document {
            id,
            title,
            text,
            format,
            elements,
            stored: _,
            metadata: _,
            pinned,
            weight,
            hints,
        } = document;
        self.text(id);
        self.number(u64::from(title.is_some()));
        self.text(title.as_deref().unwrap_or(""));
        self.text(text);
        self.number(match format {
            Format::Text => 0,
            Format::Markdown => 1,
            Format::Code => 2,
        });
        self.number(elements.as_ref().map_or(0, |elements| 1 + elements.len() as u64));
        for Element { kind, span } in elements.iter().flat_map(|elements| elements.iter()) {
            self.number(match kind {
                ElementKind::Paragraph => 0,
                ElementKind::Lines => 1,
                ElementKind::Heading(level) => 2 + u64::from(*level),
            });
            self.number(span.start as u64);
            self.number(span.end as u64);
        }
        self.number(u64::from(*pinned));
        self.number(u64::from(weight.to_bits()));
        self.number(hints.len() as u64);
        for Hint { span, kind } in hints {
            self.number(span.start as u64);
            self.number(span.end as u64);
            let (kind, weight) = match kind {
                HintKind::Protect => (0, 1.0),
                HintKind::Exclude => (1, 1.0),
                HintKind::Emphasize(weight) => (2, *weight),
            };
            self.number(kind);
            self.number(u64::from(weight.to_bits()));
        }
    }
}
