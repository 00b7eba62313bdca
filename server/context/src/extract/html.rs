//! HTML becomes text: a stream of tags and characters, no tree.
//!
//! What is kept of the markup is where blocks begin and end, which are headings, tables and listings, and the marks
//! of list items (`- `) and table cells (` | `), which are added. Everything a browser shows is kept, and what styles
//! or scripts would hide is too: they are not run. White space is collapsed outside `<pre>`, character references are
//! decoded, and of `<script>`, `<style>`, `<template>` and the like nothing is read.
//!
//! Nesting costs nothing: a few counters stand where a tree would, so that a hundred thousand open elements are as
//! good as one.

mod page;
mod tags;

use std::ops::Range;

use html5gum::emitters::{Emitter, naive_next_state};
use html5gum::{Error, State, Tokenizer};

use super::{ExtractError, Extracted};
use page::Page;

/// Most tags that are read.
pub(super) const MAX_TAGS: usize = 4 << 20;
/// Events (a tag, a stretch of text) between two looks at the clock.
const EVENTS_BETWEEN_CHECKS: usize = 1024;

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Makes text of `source`. With `xml`, as XHTML: `<![CDATA[` and `<script/>` mean what they mean there.
pub(super) fn extract(
    source: &str,
    xml: bool,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Extracted, ExtractError> {
    let reader = Reader {
        source: source.as_bytes(),
        xml,
        position: 0,
        text_start: 0,
        tag: Vec::new(),
        end_tag: false,
        self_closing: false,
        last_start_tag: Vec::new(),
        page: Page::default(),
        tags: 0,
        events: 0,
        outcome: None,
        keep_going,
    };
    // The reader's one token is the outcome.
    match Tokenizer::new_with_emitter(source, reader).next() {
        Some(Ok(outcome)) => outcome,
        None => Err(ExtractError::NoText),
    }
}

/// Takes what the tokenizer reads and minds the bounds.
struct Reader<'a> {
    source: &'a [u8],
    xml: bool,
    /// How far the tokenizer has read, in bytes.
    position: usize,
    /// Where the text that comes next began.
    text_start: usize,
    /// Name of the tag being read.
    tag: Vec<u8>,
    end_tag: bool,
    self_closing: bool,
    last_start_tag: Vec<u8>,
    page: Page,
    tags: usize,
    events: usize,
    /// Set once it is clear: at the end, or when a bound is met.
    outcome: Option<Result<Extracted, ExtractError>>,
    keep_going: &'a mut dyn FnMut() -> bool,
}

impl Reader<'_> {
    fn count_event(&mut self) {
        self.events += 1;
        if self.events.is_multiple_of(EVENTS_BETWEEN_CHECKS) && !(self.keep_going)() {
            self.outcome = Some(Err(ExtractError::Cancelled));
        }
    }

    /// The source of the text that has just been read.
    fn text_range(&mut self) -> Range<usize> {
        let end = self.position.min(self.source.len());
        let start = std::mem::replace(&mut self.text_start, end);
        start.min(end)..end
    }
}

impl Emitter for Reader<'_> {
    type Token = Result<Extracted, ExtractError>;

    fn move_position(&mut self, offset: isize) {
        self.position = self.position.saturating_add_signed(offset);
    }

    fn pop_token(&mut self) -> Option<Self::Token> {
        self.outcome.take()
    }

    fn should_emit_errors(&mut self) -> bool {
        false
    }

    fn emit_error(&mut self, _: Error) {}

    fn init_string(&mut self) {
        self.text_start = self.position;
    }

    fn emit_string(&mut self, text: &[u8]) {
        if self.outcome.is_some() {
            return;
        }
        self.count_event();
        let original = self.text_range();
        let exact = self.source.get(original.clone()) == Some(text);
        // A reference to no character, or a NUL, which the standard replaces: nothing is put in its place.
        if text == b"\0" || !exact && text == "\u{fffd}".as_bytes() {
            return;
        }
        // A byte order mark is not text.
        let mark =
            if original.start == 0 && exact && text.starts_with(BOM) { BOM.len() } else { 0 };
        let original = original.start + mark..original.end;
        if let Err(failure) = self.page.text(&text[mark..], original, exact) {
            self.outcome = Some(Err(failure));
        }
    }

    fn init_start_tag(&mut self) {
        self.tag.clear();
        self.end_tag = false;
        self.self_closing = false;
    }

    fn init_end_tag(&mut self) {
        self.tag.clear();
        self.end_tag = true;
        self.self_closing = false;
    }

    fn push_tag_name(&mut self, part: &[u8]) {
        self.tag.extend(part);
    }

    fn set_self_closing(&mut self) {
        self.self_closing = true;
    }

    fn emit_current_tag(&mut self) -> Option<State> {
        self.text_start = self.position;
        self.tags += 1;
        if self.tags > MAX_TAGS {
            self.outcome = Some(Err(ExtractError::TooLarge { what: "tags", limit: MAX_TAGS }));
        }
        self.count_event();
        if self.end_tag {
            self.last_start_tag.clear();
            self.page.close(&self.tag);
            return None;
        }
        self.last_start_tag.clone_from(&self.tag);
        self.page.open(&self.tag);
        if self.xml && self.self_closing {
            self.page.close(&self.tag);
            return None;
        }
        naive_next_state(&self.tag)
    }

    fn current_is_appropriate_end_tag_token(&mut self) -> bool {
        self.end_tag && !self.tag.is_empty() && self.tag == self.last_start_tag
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&mut self) -> bool {
        self.xml
    }

    fn set_last_start_tag(&mut self, tag: Option<&[u8]>) {
        self.last_start_tag = tag.unwrap_or_default().to_vec();
    }

    fn emit_current_comment(&mut self) {
        self.text_start = self.position;
        self.count_event();
    }

    fn emit_current_doctype(&mut self) {
        self.text_start = self.position;
    }

    fn emit_eof(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some(std::mem::take(&mut self.page).finish());
        }
    }

    fn init_comment(&mut self) {}
    fn push_comment(&mut self, _: &[u8]) {}
    fn init_attribute(&mut self) {}
    fn push_attribute_name(&mut self, _: &[u8]) {}
    fn push_attribute_value(&mut self, _: &[u8]) {}
    fn init_doctype(&mut self) {}
    fn set_force_quirks(&mut self) {}
    fn push_doctype_name(&mut self, _: &[u8]) {}
    fn set_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn set_doctype_system_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_system_identifier(&mut self, _: &[u8]) {}
}
