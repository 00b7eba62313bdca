//! Selection across the turns of a conversation: nothing already sent moves.
//!
//! A chat sends all its messages and the same documents at every turn. What was chosen at earlier turns is remembered
//! ([`Selections`]) under everything the choice went by, the messages up to its turn among them, so that no name for
//! the conversation is needed and a conversation may branch. At a later turn those passages stand where they stood,
//! before their own messages, byte for byte, and the prefix cache finds what it computed.
//!
//! A turn asks for what its question would get alone, with half of the budget that is left; what was sent before is
//! taken out of that, and the rest stands before the last message. When too little of the budget is left and the
//! question asks for something new, everything is chosen afresh for the last message; [`Sticky`] says so.

mod key;
mod memory;
mod record;
mod remainder;
mod turn;

use std::cell::RefCell;

use crate::compress::{check, verbatim};
use crate::{
    Budget, ChatModel, ContextError, Document, LanguageModel, Mode, Packed, Policy, Report, Tools,
};
pub use key::{Chat, SelectionKey};
pub use memory::{RecentSelections, Selections};
use record::Turn;
use turn::Choosing;

/// What earlier turns sent, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sticky {
    /// Earlier messages before which passages stand.
    pub turns_kept: u32,
    /// Context tokens of those passages.
    pub tokens_kept: u32,
    /// Context tokens this turn adds; with `tokens_kept` they make up [`Report::tokens_after`].
    pub tokens_added: u32,
    /// The budget forced a new choice: earlier messages stand without their passages.
    pub fresh: bool,
    /// Why, a sentence for people.
    pub reason: String,
}

/// The contexts of a chat, and what to remember of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversed {
    /// What stands before which message, in order of messages. A message without passages is not among them.
    pub contexts: Vec<(usize, Packed)>,
    /// What became of every byte, over all turns. A span of an earlier turn has the scores it was chosen by.
    pub report: Report,
    /// What became of what earlier turns sent.
    pub sticky: Sticky,
    /// What to remember if it is sent.
    pub sent: Sent,
}

/// What stands before which message up to a turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    key: SelectionKey,
    turns: Vec<Turn>,
}

impl Sent {
    /// Remembers it for the turns to come.
    pub fn remember(&self, memory: &dyn Selections) {
        memory.put(&self.key, record::encode(&self.turns));
    }
}

/// Makes the contexts of a chat from `documents` as `policy` says, keeping what `memory` knows of earlier turns where it
/// was sent. The budget bounds the context tokens of all turns together: the tokens by which all contexts lengthen
/// the prompt. `limit` as for [`compress`](crate::compress()).
///
/// # Errors
/// As [`compress`](crate::compress()): what earlier turns sent is rather given up than an error.
pub fn converse(
    documents: &[Document],
    policy: &Policy,
    limit: Option<u32>,
    model: &dyn ChatModel,
    chat: &Chat<'_>,
    memory: &dyn Selections,
    tools: Tools<'_>,
) -> Result<Conversed, ContextError> {
    check(documents, policy)?;
    let keys = key::turns(chat, documents, policy);
    let Some(((question, key), before)) =
        keys.split_last().filter(|((question, _), _)| *question + 1 == chat.messages.len())
    else {
        let message = "needs the last message to be the user's".to_owned();
        return Err(ContextError::Policy { field: "sticky", message });
    };
    let recall = |(_, key): &(usize, SelectionKey)| record::decode(&memory.get(key)?, documents);
    let earlier = before.iter().rev().find_map(recall).unwrap_or_default();

    let model = Measured { model, longest: RefCell::default() };
    let whole = verbatim(documents, &model)?;
    let tokens_before = whole.report.tokens_before;
    let asked = match (policy.mode, policy.budget) {
        (Mode::None, _) => u32::MAX,
        (Mode::Retrieve, Budget::Tokens(tokens)) => tokens,
        (Mode::Retrieve, Budget::KeepRatio(ratio)) => {
            (f64::from(tokens_before) * f64::from(ratio)) as u32
        }
    };
    let turn = Choosing {
        documents,
        policy,
        limit,
        model: &model,
        tools,
        question: *question,
        asked,
        times: whole.report.times,
        warnings: Vec::new(),
    };
    turn.choose(earlier, whole, key.clone(), before.is_empty())
}

/// Counts as the model does, the longest context (all documents) only once.
struct Measured<'a> {
    model: &'a dyn ChatModel,
    longest: RefCell<(String, u32)>,
}

impl LanguageModel for Measured<'_> {
    fn count(&self, text: &str) -> u32 {
        self.model.count(text)
    }

    fn proceed(&self) -> Result<(), ContextError> {
        self.model.proceed()
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        if let (longest, tokens) = &*self.longest.borrow()
            && !context.is_empty()
            && longest == context
        {
            return Ok(*tokens);
        }
        let tokens = self.model.prompt_tokens(context)?;
        let mut longest = self.longest.borrow_mut();
        if context.len() > longest.0.len() {
            *longest = (context.to_owned(), tokens);
        }
        Ok(tokens)
    }
}
