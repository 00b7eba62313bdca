//! The settings of a step's rows, packed into one piece of words for the device.

use std::iter::Peekable;

/// Words of a row: flags, temperature, top-k, top-p, min-p, three penalties, seed, draw, and where its edits lie.
pub(super) const HEADER_WORDS: usize = 16;
/// Words of an edit: token, bias, what else befalls it, and room for the logit it overwrites.
pub(super) const EDIT_WORDS: usize = 4;

const LIVE: u32 = 1;
const MASKED: u32 = 2;

const BANNED: u32 = 1 << 31;
const SEEN: u32 = 1 << 30;
const BIASED: u32 = 1 << 29;

/// How to choose the next token of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow<'a> {
    /// Below 1e-5 = greedy.
    pub temperature: f32,
    /// Keep the k most likely; 0 = all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; 1 = all.
    pub top_p: f32,
    /// Drop tokens below this share of the most likely one's probability; 0 = none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen; 1 = none.
    pub repetition_penalty: f32,
    /// Subtracted per occurrence in the output; 0 = none.
    pub frequency_penalty: f32,
    /// Subtracted once for a token in the output; 0 = none.
    pub presence_penalty: f32,
    /// Tokens the repetition penalty applies to, with how often each stands in the output. Sorted by token.
    pub seen: &'a [(u32, u32)],
    /// Tokens that may not be chosen. Sorted.
    pub banned: &'a [u32],
    /// Added to a token's logit. Sorted by token.
    pub logit_bias: &'a [(u32, f32)],
    /// Whether only tokens of the row's mask may be chosen.
    pub masked: bool,
    /// The sequence's seed.
    pub seed: u64,
    /// Index of this token in the sequence's output.
    pub draw: u64,
}

/// The settings of a step, made on the host and copied to the device in one piece.
#[derive(Debug, Clone, Default)]
pub struct SampleRows {
    /// Headers of all rows, then edits.
    words: Vec<u32>,
    rows: usize,
}

impl SampleRows {
    /// Begins a step of `rows` rows, of which none is to be sampled yet; storage is kept from step to step.
    pub fn begin(&mut self, rows: usize) {
        self.words.clear();
        self.words.resize(rows * HEADER_WORDS, 0);
        self.rows = rows;
    }

    /// Sets how row `row` is sampled, once for each.
    ///
    /// # Panics
    /// There is no such row.
    pub fn set(&mut self, row: usize, settings: &SampleRow<'_>) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let first = self.edits();
        self.add_edits(settings);
        let count = self.edits() - first;
        let header = &mut self.words[row * HEADER_WORDS..][..HEADER_WORDS];
        let halves = |number: u64| [number as u32, (number >> 32) as u32];
        let ([seed, seed_high], [draw, draw_high]) = (halves(settings.seed), halves(settings.draw));
        header[..14].copy_from_slice(&[
            LIVE | if settings.masked { MASKED } else { 0 },
            settings.temperature.to_bits(),
            settings.top_k,
            settings.top_p.to_bits(),
            settings.min_p.to_bits(),
            settings.repetition_penalty.to_bits(),
            settings.frequency_penalty.to_bits(),
            settings.presence_penalty.to_bits(),
            seed,
            seed_high,
            draw,
            draw_high,
            first as u32,
            count as u32,
        ]);
    }

    /// Tokens whose logits are edited, of all rows set: at most as many as are seen, banned or biased.
    pub fn edits(&self) -> usize {
        (self.words.len() - self.rows * HEADER_WORDS) / EDIT_WORDS
    }

    /// All of it, as the device reads it.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// One edit for each token that is biased, seen or banned, in order of token.
    fn add_edits(&mut self, settings: &SampleRow<'_>) {
        let penalised = settings.repetition_penalty != 1.0
            || settings.frequency_penalty != 0.0
            || settings.presence_penalty != 0.0;
        let mut bias = settings.logit_bias.iter().copied().peekable();
        let seen = if penalised { settings.seen } else { &[] };
        let mut seen = seen.iter().copied().peekable();
        let mut banned = settings.banned.iter().map(|&token| (token, ())).peekable();
        loop {
            let heads = [
                bias.peek().map(|&(token, _)| token),
                seen.peek().map(|&(token, _)| token),
                banned.peek().map(|&(token, ())| token),
            ];
            let Some(token) = heads.into_iter().flatten().min() else {
                return;
            };
            let (mut added, mut kind) = (0.0, 0);
            while let Some(amount) = next_of(&mut bias, token) {
                added += amount;
                kind |= BIASED;
            }
            while let Some(count) = next_of(&mut seen, token) {
                // The flags' bits are out of reach of any output's length.
                kind |= SEEN | count.min(BIASED - 1);
            }
            while next_of(&mut banned, token).is_some() {
                kind |= BANNED;
            }
            self.words.extend([token, f32::to_bits(added), kind, 0]);
        }
    }
}

/// Takes what comes next if it is of `token`.
fn next_of<T>(list: &mut Peekable<impl Iterator<Item = (u32, T)>>, token: u32) -> Option<T> {
    list.next_if(|&(next, _)| next == token).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::{BANNED, BIASED, SEEN, SampleRow, SampleRows};

    const PLAIN: SampleRow<'_> = SampleRow {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seen: &[],
        banned: &[],
        logit_bias: &[],
        masked: false,
        seed: 0,
        draw: 0,
    };

    #[test]
    fn a_token_is_edited_once_whatever_befalls_it() {
        let mut rows = SampleRows::default();
        rows.begin(3);
        rows.set(2, &SampleRow { banned: &[9], ..PLAIN });
        let busy = SampleRow {
            repetition_penalty: 1.5,
            seen: &[(2, 7), (4, 0)],
            banned: &[1, 4],
            logit_bias: &[(2, 0.5), (3, -1.0)],
            seed: 5 << 32,
            draw: 6,
            masked: true,
            ..PLAIN
        };
        rows.set(0, &busy);
        assert_eq!(rows.edits(), 5);
        let (headers, edits) = rows.words().split_at(48);
        let edits: Vec<&[u32]> = edits.chunks_exact(4).collect();
        assert_eq!(
            edits,
            [
                [9, 0, BANNED, 0],
                [1, 0, BANNED, 0],
                [2, 0.5f32.to_bits(), BIASED | SEEN | 7, 0],
                [3, (-1.0f32).to_bits(), BIASED, 0],
                [4, 0, SEEN | BANNED, 0],
            ]
        );
        assert_eq!((headers[0], &headers[8..14]), (3, &[0, 5, 6, 0, 1, 4][..]));
        assert_eq!(headers[16..32], [0; 16], "a row that is not sampled");
        assert_eq!(headers[32 + 12..32 + 14], [0, 1]);
    }

    #[test]
    fn without_a_penalty_nothing_seen_is_edited() {
        let mut rows = SampleRows::default();
        for _ in 0..2 {
            rows.begin(1);
            rows.set(0, &SampleRow { seen: &[(1, 1)], ..PLAIN });
            assert_eq!((rows.edits(), rows.words().len()), (0, 16));
        }
    }
}
