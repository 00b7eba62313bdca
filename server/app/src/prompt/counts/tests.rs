//! Counts of parts are those of the whole, in this process and in the next.

use pith_model::tokenizer::Vocab;

use super::*;

/// Byte-level BPE with a few merges.
fn tokenizer() -> Tokenizer {
    let hidden = (0u32..).map(|i| char::from_u32(0x100 + i).unwrap());
    let mut hidden = hidden.map(String::from);
    let spelled = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
        _ => hidden.next().unwrap(),
    };
    let mut tokens: Vec<String> = (0..=255).map(spelled).collect();
    let merges = ["t h", "th e", "\u{120} t", "a n"].map(str::to_owned);
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let token_types = vec![1; tokens.len()];
    let pre = Some("smollm".to_owned());
    let merges = merges.to_vec();
    let vocab =
        Vocab { model: "gpt2".to_owned(), pre, tokens, token_types, merges, ..Vocab::default() };
    Tokenizer::from_vocab(vocab).unwrap()
}

#[test]
fn parts_add_up_to_the_whole_and_are_counted_once() {
    let tokenizer = tokenizer();
    let sentence = |n: usize| format!("The {n} anthems, than {} then; that is the end! ", n * n);
    let text: String = (0..2000).map(sentence).collect();
    assert!(text.len() > MIN_BYTES);
    let counts = TokenCounts::default();
    let counting = |tenant| Counting { counts: &counts, tenant, model: "m" };
    let kept = || counts.0.lock().unwrap().young.len();
    let whole = tokenizer.count(&text);
    assert_eq!(counting("a").count(&tokenizer, &text, &SentenceCounts::default()), whole);
    let parts = kept();
    assert!(parts > 20, "{parts}");
    assert_eq!(counting("a").count(&tokenizer, &text, &SentenceCounts::default()), whole);
    assert_eq!(kept(), parts);
    // Behind other text the same parts come again, but for the first ones.
    let moved = format!("Something else. {text}");
    assert_eq!(
        counting("a").count(&tokenizer, &moved, &SentenceCounts::default()),
        tokenizer.count(&moved)
    );
    assert!(kept() <= parts + 4, "{} of {parts}", kept());
    // Another tenant's are its own.
    assert_eq!(counting("b").count(&tokenizer, &text, &SentenceCounts::default()), whole);
    assert!(kept() >= 2 * parts);
}

/// A text of a few hundred parts' worth, sentences of every kind.
fn long_text() -> String {
    let sentence = |n: usize| match n % 5 {
        0 => format!("The {n} anthems, than {} then; that is the end! ", n * n),
        1 => format!("Na\u{ef}ve caf\u{e9}s {n}\n\n\tand\u{3000}\u{6f22}\u{5b57} "),
        2 => "then ".repeat(n % 40),
        3 => format!("{n}{n}{n}-{n}... "),
        _ => format!("An answer {n} that {} ants thought {} of then? ", n * 7, n * 13),
    };
    (0..4000).map(sentence).collect()
}

#[test]
fn what_is_saved_is_counted_for_the_next_process() {
    let tokenizer = tokenizer();
    let text = long_text();
    let before = TokenCounts::default();
    let counting = |counts| Counting { counts, tenant: "a", model: "m" };
    assert!(!counting(&before).knows(&tokenizer, &text));
    let saved = counting(&before).save(&tokenizer, &text);
    assert!(counting(&before).knows(&tokenizer, &text));

    let after = TokenCounts::default();
    assert!(counting(&after).restore(&text, &saved));
    assert!(counting(&after).knows(&tokenizer, &text));
    let kept = |counts: &TokenCounts| counts.0.lock().unwrap().young.len();
    let restored = kept(&after);
    assert!(restored > 50, "{restored}");
    for prompt in [text.clone(), format!("Answer from the text. {text} Question: what then?")] {
        let whole = tokenizer.count(&prompt);
        assert_eq!(counting(&after).count(&tokenizer, &prompt, &SentenceCounts::default()), whole);
        assert_eq!(counting(&before).count(&tokenizer, &prompt, &SentenceCounts::default()), whole);
    }
    // Little was counted anew: the beginnings and the ends.
    assert!(kept(&after) <= restored + 10, "{} of {restored}", kept(&after));
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let tokenizer = tokenizer();
    let text = long_text();
    let counts = TokenCounts::default();
    let counting = Counting { counts: &counts, tenant: "a", model: "m" };
    let saved = counting.save(&tokenizer, &text);
    let fresh = TokenCounts::default();
    let counting = Counting { counts: &fresh, ..counting };
    for wrong in [&saved[..saved.len() - 4], &saved[..saved.len() - 1], &[0xff; 20]] {
        assert!(!counting.restore(&text, wrong));
    }
    assert!(!counting.restore(&text[..text.floor_char_boundary(text.len() / 2)], &saved));
    assert!(fresh.0.lock().unwrap().young.is_empty());
    // A text without seams has nothing to be saved, and is none the worse.
    let seamless = "\u{6f22}\u{5b57}".repeat(9000);
    assert!(counting.knows(&tokenizer, &seamless));
    assert!(counting.restore(&seamless, &counting.save(&tokenizer, &seamless)));
}

#[test]
fn sentences_are_counted_once_and_add_up() {
    let tokenizer = tokenizer();
    let text = long_text();
    let counts = TokenCounts::default();
    let counting = Counting { counts: &counts, tenant: "a", model: "m" };
    let sentences = SentenceCounts::default();
    // Prompts as they are fitted: a few stretches of the text, more and fewer of them.
    for (from, step) in [(0, 900), (100, 900), (100, 700), (7, 1300), (3000, 850)] {
        let mut prompt = "Answer from the text.".to_owned();
        let mut start = from;
        while prompt.len() < 14_000 {
            let begin = text.floor_char_boundary(start);
            let end = text.floor_char_boundary(start + 400);
            prompt += "\n...\n";
            prompt += &text[begin..end];
            start += step;
        }
        assert!(prompt.len() < MIN_BYTES);
        assert_eq!(counting.count(&tokenizer, &prompt, &sentences), tokenizer.count(&prompt));
        let before = sentences.0.borrow().len();
        assert!(before > 20, "{before}");
        let again = format!("{prompt} And then?");
        assert_eq!(counting.count(&tokenizer, &again, &sentences), tokenizer.count(&again));
        assert!(sentences.0.borrow().len() <= before + 1);
    }
    for short in ["", "x", "The end. And then"] {
        assert_eq!(counting.count(&tokenizer, short, &sentences), tokenizer.count(short));
        assert_eq!(counting.count_alone(&tokenizer, short), tokenizer.count(short));
    }
}
