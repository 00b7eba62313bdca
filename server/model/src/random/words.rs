//! A vocabulary of any size, of made-up words.

use crate::tokenizer::Vocab;

/// Unknown, beginning and end; then a token for each byte, the space, and words.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];
const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aeou";

/// `count` tokens, any text of which can be encoded and any of which reads as harmless text.
pub(super) fn vocab(count: usize) -> Vocab {
    let special = SPECIAL.iter().zip([2, 3, 3]).map(|(name, kind)| ((*name).to_owned(), kind));
    let bytes = (0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 6));
    let space = std::iter::once(("\u{2581}".to_owned(), 1));
    let words = (0..).map(|number| (word(number), 1));
    let (tokens, token_types): (Vec<_>, Vec<_>) =
        special.chain(bytes).chain(space).chain(words).take(count).unzip();
    Vocab {
        model: "llama".to_owned(),
        // Earlier words go first.
        scores: (0..tokens.len()).map(|id| -(id as f32)).collect(),
        tokens,
        token_types,
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_bos: Some(true),
        add_space_prefix: Some(false),
        ..Vocab::default()
    }
}

/// A space and a syllable for each digit of `number` to the base of 64.
fn word(mut number: usize) -> String {
    let mut word = "\u{2581}".to_owned();
    loop {
        let (consonant, vowel) = (CONSONANTS[number / 4 % 16], VOWELS[number % 4]);
        word.extend([char::from(consonant), char::from(vowel)]);
        number /= 64;
        if number == 0 {
            return word;
        }
    }
}
