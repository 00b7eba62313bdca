//! Tokens back to text while they arrive: never half a character, never part of a stop string.

use std::sync::Arc;

/// What the engine needs to know of a model's vocabulary.
pub trait Vocabulary: Send + Sync {
    /// The bytes a token stands for in running text; empty for control tokens.
    fn bytes(&self, token: u32) -> &[u8];
    /// Tokens that end a generation.
    fn end_tokens(&self) -> &[u32];
}

impl Vocabulary for pith_model::ModelFile {
    fn bytes(&self, token: u32) -> &[u8] {
        self.tokenizer().bytes(token)
    }

    fn end_tokens(&self) -> &[u32] {
        self.tokenizer().end_tokens()
    }
}

/// Turns one sequence's tokens into text.
#[derive(Debug)]
pub struct Detokenizer {
    stops: Arc<[String]>,
    /// Bytes that do not yet end on a character boundary (at most 3).
    partial: Vec<u8>,
    /// Whole characters held back because a stop string may be starting in them.
    held: String,
    stopped: Option<usize>,
}

impl Detokenizer {
    /// Watches for `stops`, none of them empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into(), partial: Vec::new(), held: String::new(), stopped: None }
    }

    /// Takes in a token's bytes; returns the text that is ready. Once a stop string is complete, the text
    /// before it is returned and [`Self::stopped`] says which.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        self.partial.extend_from_slice(bytes);
        self.decode(false);
        self.release(false)
    }

    /// The text still held back, at the end of the sequence. Half a character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        self.decode(true);
        self.release(true)
    }

    /// The stop string that was reached.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|i| self.stops[i].as_str())
    }

    /// Moves whole characters from `partial` to `held`; what can never become one turns into U+FFFD.
    fn decode(&mut self, last: bool) {
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.held.push_str(std::str::from_utf8(good).unwrap_or_default());
                    match error.error_len() {
                        Some(len) => {
                            self.held.push('\u{fffd}');
                            rest = &bad[len..];
                        }
                        None => {
                            rest = bad;
                            break;
                        }
                    }
                }
            }
        }
        let rest = rest.to_vec();
        self.partial = rest;
        if last && !self.partial.is_empty() {
            self.partial.clear();
            self.held.push('\u{fffd}');
        }
    }

    fn release(&mut self, last: bool) -> String {
        let first = self
            .stops
            .iter()
            .enumerate()
            .filter_map(|(i, stop)| Some((self.held.find(stop.as_str())?, i)))
            .min();
        if let Some((at, stop)) = first {
            self.stopped = Some(stop);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = if last {
            0
        } else {
            self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0)
        };
        let tail = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, tail)
    }
}

/// Length of the longest suffix of `text` that is a proper prefix of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let mut d = Detokenizer::new(stops.iter().map(|&s| s.to_owned()).collect());
        let mut out: Vec<String> = pieces.iter().map(|p| d.push(p)).collect();
        out.push(d.finish());
        (out, d.stopped().map(str::to_owned))
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let (out, _) = run(&[], &[b"a\xf0\x9f", b"\x98", b"\x80b"]);
        assert_eq!(out, ["a", "", "😀b", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let (out, _) = run(&[], &[b"a\xffb\xe4\xb8", b"c", b"\xe4"]);
        assert_eq!(out, ["a\u{fffd}b", "\u{fffd}c", "", "\u{fffd}"]);
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_never_shown() {
        let (out, stopped) =
            run(&["END", "\n\n"], &[b"one E", b"N", b"X two\n", b"E", b"ND three", b"four"]);
        assert_eq!(out.concat(), "one ENX two\n");
        assert_eq!(out[0], "one ");
        assert_eq!(stopped.as_deref(), Some("END"));
    }

    #[test]
    fn the_earliest_stop_string_wins() {
        let (out, stopped) = run(&["world", "lo"], &[b"hello world"]);
        assert_eq!((out.concat().as_str(), stopped.as_deref()), ("hel", Some("lo")));
    }

    #[test]
    fn what_looked_like_a_stop_string_is_shown_at_the_end() {
        let (out, stopped) = run(&["stop"], &[b"sto"]);
        assert_eq!((out.concat().as_str(), stopped), ("sto", None));
    }
}
