//! Tokenizer tests: hostile vocabularies, properties, and bounds on time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::merge::{Join, Merger, Symbol};
use super::special::Specials;
use super::split::Split;
use super::*;

const RULES: [&str; 6] = ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"];

/// A byte-level vocabulary of all bytes, `merges` and `special` (spelling, type).
fn bpe_vocab(pre: &str, merges: &[&str], special: &[(&str, i32)]) -> Vocab {
    // U+0100.. spell the bytes without a visible character, in order.
    let hidden = (0u32..).map(|i| char::from_u32(0x100 + i).unwrap());
    let mut hidden = hidden.map(String::from);
    let spelled = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
        _ => hidden.next().unwrap(),
    };
    let mut tokens: Vec<String> = (0..=255).map(spelled).collect();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut token_types = vec![1; tokens.len()];
    tokens.extend(special.iter().map(|(token, _)| (*token).to_owned()));
    token_types.extend(special.iter().map(|(_, kind)| kind));
    Vocab {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        token_types,
        merges: merges.iter().map(|merge| (*merge).to_owned()).collect(),
        ..Vocab::default()
    }
}

/// A SentencePiece vocabulary: `<unk>`, byte tokens, and `pieces` (spelling, score, type).
fn spm_vocab(pieces: &[(&str, f32, i32)]) -> Vocab {
    let mut vocab = Vocab {
        model: "llama".to_owned(),
        tokens: vec!["<unk>".to_owned()],
        scores: vec![0.0],
        token_types: vec![2],
        unk: Some(0),
        ..Vocab::default()
    };
    let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let bytes = bytes.iter().map(|byte| (byte.as_str(), 0.0, 6));
    for (token, score, kind) in bytes.chain(pieces.iter().copied()) {
        vocab.tokens.push(token.to_owned());
        vocab.scores.push(score);
        vocab.token_types.push(kind);
    }
    vocab
}

/// Tokens of doubling length, so that a run of one letter merges all the way up.
fn doubling_spm(letter: &str) -> Vocab {
    let runs: Vec<String> = (0..8).map(|power| letter.repeat(1 << power)).collect();
    let pieces: Vec<_> =
        runs.iter().zip(0u8..).map(|(run, i)| (run.as_str(), -f32::from(i), 1)).collect();
    spm_vocab(&pieces)
}

fn pieces<'t>(tokenizer: &'t Tokenizer, ids: &[u32]) -> Vec<&'t str> {
    ids.iter().map(|&id| tokenizer.piece(id).unwrap()).collect()
}

#[test]
fn hostile_vocabularies_are_typed_errors() {
    type Spoil = fn(&mut Vocab);
    let cases: [(&str, Spoil); 16] = [
        ("model \"t5\"", |v| v.model = "t5".to_owned()),
        ("pre \"mystery\"", |v| v.pre = Some("mystery".to_owned())),
        ("pre is missing", |v| v.pre = None),
        ("0 tokens", |v| *v = Vocab { tokens: vec![], token_types: vec![], ..v.clone() }),
        ("token types for", |v| v.token_types.truncate(5)),
        ("type 9", |v| v.token_types[3] = 9),
        ("both spelled \"a\"", |v| v.tokens[0] = "a".to_owned()),
        ("bos_token_id 999", |v| v.bos = Some(999)),
        ("eom_token_id 4294967295", |v| v.eom = Some(u32::MAX)),
        ("merges is missing", |v| v.merges.clear()),
        ("does not join", |v| v.merges.push("a zz".to_owned())),
        ("does not join", |v| v.merges.push("a x".to_owned())),
        ("does not join", |v| v.merges.push("a".to_owned())),
        ("does not join", |v| v.merges.push(String::new())),
        ("not <0xHH>", |v| v.token_types[7] = 6),
        ("1025 bytes", |v| v.tokens[7] = "x".repeat(1025)),
    ];
    for (message, spoil) in cases {
        let mut vocab = bpe_vocab("gpt-2", &["a b"], &[]);
        spoil(&mut vocab);
        let error = Tokenizer::from_vocab(vocab).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} should say {message:?}");
    }
    let cases: [(&str, Spoil); 4] = [
        ("scores for", |v| v.scores.truncate(3)),
        ("score of token 2 is not a number", |v| v.scores[2] = f32::NAN),
        ("remove_extra_whitespaces", |v| v.remove_extra_whitespaces = Some(true)),
        ("not <0xHH>", |v| v.tokens[5] = "<0x+1>".to_owned()),
    ];
    for (message, spoil) in cases {
        let mut vocab = doubling_spm("a");
        spoil(&mut vocab);
        let error = Tokenizer::from_vocab(vocab).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} should say {message:?}");
    }
}

#[test]
fn odd_vocabularies_are_handled() {
    // Holes, infinite scores, and merges that make or need control tokens.
    let mut vocab = bpe_vocab("gpt-2", &["a b", "a b", "ab c"], &[("", 1), ("cd", 3)]);
    vocab.tokens[257] = String::new();
    vocab.merges.push("c d".to_owned());
    let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
    assert_eq!(pieces(&tokenizer, &tokenizer.encode("abcd", Special::Plain)), ["abc", "d"]);
    assert_eq!(tokenizer.bytes(257), b"");
    assert_eq!(tokenizer.bytes(u32::MAX), b"");
    assert_eq!(tokenizer.piece(u32::MAX), None);

    let mut vocab = spm_vocab(&[
        ("a", f32::NEG_INFINITY, 1),
        ("aa", f32::INFINITY, 1),
        ("<s>", 9.0, 3),
        ("<s", 8.0, 1),
    ]);
    vocab.add_space_prefix = Some(false);
    let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
    assert_eq!(pieces(&tokenizer, &tokenizer.encode("aaa", Special::Plain)), ["aa", "a"]);
    // Merging never makes a control token out of text, whatever its score.
    assert_eq!(pieces(&tokenizer, &tokenizer.encode("<s>", Special::Plain)), ["<s", "<0x3E>"]);
    assert_eq!(pieces(&tokenizer, &tokenizer.encode("<s>", Special::Parse)), ["<s>"]);
}

#[test]
fn what_a_model_cannot_spell_leaves_the_rest_whole() {
    let mut vocab = bpe_vocab("gpt-2", &["a b"], &[]);
    vocab.tokens[usize::from(b'z')] = "unused".to_owned();
    let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
    let spans = tokenizer.encode_spans("abzab", Special::Plain);
    let ranges: Vec<_> = spans.iter().map(|span| span.start..span.end).collect();
    assert_eq!(ranges, [0..2, 3..5]);

    // SentencePiece says "unknown" once per character, if its byte tokens are incomplete.
    let mut vocab = spm_vocab(&[("a", 0.0, 1)]);
    vocab.token_types[1 + 0xC3] = 5;
    vocab.add_space_prefix = Some(false);
    let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
    assert_eq!(pieces(&tokenizer, &tokenizer.encode("aéa", Special::Plain)), ["a", "<unk>", "a"]);
}

#[test]
fn tokens_of_a_split_character_share_its_range() {
    let mut vocab = spm_vocab(&[("a", 0.0, 1)]);
    vocab.add_space_prefix = Some(false);
    let bpe = Tokenizer::from_vocab(bpe_vocab("gpt-2", &["a b"], &[])).unwrap();
    for tokenizer in [Tokenizer::from_vocab(vocab).unwrap(), bpe] {
        let spans = tokenizer.encode_spans("a€a", Special::Plain);
        let ranges: Vec<_> = spans.iter().map(|span| span.start..span.end).collect();
        assert_eq!(ranges, [0..1, 1..4, 1..4, 1..4, 4..5]);
        let ids: Vec<u32> = spans.iter().map(|span| span.id).collect();
        assert_eq!(tokenizer.decode(&ids, false), "a€a");
        assert_eq!(tokenizer.decode(&ids[..2], false), "a\u{FFFD}");
        assert_eq!(tokenizer.bytes(ids[1]), &"€".as_bytes()[..1]);
    }
}

#[test]
fn added_space_takes_no_room_in_the_text() {
    let vocab = spm_vocab(&[
        ("\u{2581}", -3.0, 1),
        ("a", -3.0, 1),
        ("\u{2581}a", -1.0, 1),
        ("<x>", 0.0, 3),
    ]);
    let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
    let seen = |text: &str| {
        let spans = tokenizer.encode_spans(text, Special::Parse);
        spans
            .iter()
            .map(|span| (tokenizer.piece(span.id).unwrap(), span.start, span.end))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(""), []);
    assert_eq!(seen("a"), [("\u{2581}a", 0, 1)]);
    assert_eq!(seen(" a"), [("\u{2581}", 0, 0), ("\u{2581}a", 0, 2)]);
    assert_eq!(
        seen("a<x>a a"),
        [("\u{2581}a", 0, 1), ("<x>", 1, 4), ("\u{2581}a", 4, 5), ("\u{2581}a", 5, 7)]
    );
    assert_eq!(tokenizer.decode(&tokenizer.encode("a<x>", Special::Parse), true), " a<x>");
    assert_eq!(tokenizer.decode(&tokenizer.encode("a<x>", Special::Parse), false), " a");
}

#[test]
fn prompts_begin_and_end_as_the_file_says() {
    let special =
        [("<s>", 3), ("</s>", 3), ("<|im_end|>", 3), ("<|end|>", 1), ("<|eot_id|>", 4), ("<m>", 3)];
    let build = |pre: &str, add_bos| {
        let mut vocab = bpe_vocab(pre, &["a b"], &special);
        (vocab.bos, vocab.eos, vocab.eom) = (Some(257), Some(258), Some(262));
        vocab.add_bos = add_bos;
        Tokenizer::from_vocab(vocab).unwrap()
    };
    // Named by the file, or a control token known to end turns; not the ordinary `<|end|>`.
    assert_eq!(build("gpt-2", None).end_tokens(), [258, 259, 262]);
    assert_eq!(build("gpt-2", None).prompt_bos(), None);
    assert_eq!(build("gpt-2", Some(true)).prompt_bos(), Some(257));
    assert_eq!(build("llama-bpe", None).prompt_bos(), Some(257));
    assert_eq!(build("llama-bpe", Some(false)).prompt_bos(), None);
    assert_eq!(build("llama-bpe", Some(false)).bos(), Some(257));
    assert_eq!(Tokenizer::from_vocab(doubling_spm("a")).unwrap().prompt_bos(), None);
}

#[test]
fn tekken_keeps_combining_marks_in_words() {
    assert_eq!(
        words("tekken", "e\u{301}tude HelloWorld नमस्ते"),
        ["e\u{301}tude", " Hello", "World", " नमस्ते"]
    );
}

#[test]
fn runs_of_spaces_leave_one_to_the_next_word() {
    assert_eq!(words("gpt-2", "a   b\n\nc  "), ["a", "  ", " b", "\n", "\n", "c", "  "]);
    assert_eq!(
        words("llama-bpe", "a   b \n\n  c\n "),
        ["a", "  ", " b", " \n\n", " ", " c", "\n", " "]
    );
    assert_eq!(words("smollm", "x  12 34"), ["x", "  ", "1", "2", " ", "3", "4"]);
}

fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
    split_words(&Split::named(pre).unwrap(), text)
}

fn split_words<'t>(split: &Split, text: &'t str) -> Vec<&'t str> {
    let mut words = Vec::new();
    split.words(text, &mut |start, end| words.push(&text[start..end]));
    words
}

/// Quadratic time would exceed the bound for a text of this size several times over,
/// and yet the bound leaves room for a loaded machine.
#[test]
fn long_monotonous_text_takes_no_longer_than_other_text() {
    const SIZE: usize = 1 << 17;
    let bpe = |pre: &str| {
        let merges = ["a a", "aa aa", "aaaa aaaa", "aaaaaaaa aaaaaaaa", "Ġ Ġ", "ĠĠ ĠĠ", "1 1"];
        let newlines: Vec<String> = (1..32).map(|count| "\n".repeat(count)).collect();
        let special: Vec<_> = newlines.iter().map(|run| (run.as_str(), 4)).collect();
        Tokenizer::from_vocab(bpe_vocab(pre, &merges, &special)).unwrap()
    };
    let mut tokenizers: Vec<_> = RULES.into_iter().map(bpe).collect();
    tokenizers.push(Tokenizer::from_vocab(doubling_spm("a")).unwrap());
    tokenizers.push(Tokenizer::from_vocab(doubling_spm("\u{2581}")).unwrap());
    for tokenizer in tokenizers {
        for part in ["a", " ", "\n", "1", "'", " \n", "a ", "\u{301}"] {
            let text = part.repeat(SIZE / part.len());
            let start = Instant::now();
            let spans = tokenizer.encode_spans(&text, Special::Parse);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(5), "{part:?} took {took:?}");
            assert_eq!(spans.last().unwrap().end, text.len());
        }
    }
}

/// Joins the best pair again and again, looking at all of them each time.
fn merged_slowly(letters: &[u32], join: impl Fn(u32, u32) -> Option<Join>) -> Vec<u32> {
    let mut symbols = letters.to_vec();
    loop {
        let pairs = symbols.windows(2).enumerate();
        let joins = pairs.filter_map(|(at, pair)| {
            join(pair[0], pair[1]).map(|found| (found.rank, at, found.id))
        });
        let Some((_, at, id)) = joins.min() else { return symbols };
        symbols.splice(at..at + 2, [id]);
    }
}

/// Looks for one special token after the other in what is left, as llama.cpp does.
fn partitioned_slowly(text: &str, specials: &[(u32, &str)]) -> Vec<(usize, usize, Option<u32>)> {
    let mut fragments = vec![(0, text.len(), None)];
    let mut order = specials.to_vec();
    order.sort_by_key(|(_, token)| std::cmp::Reverse(token.len()));
    for (id, token) in order {
        let mut next = Vec::new();
        for (mut start, end, found) in fragments {
            while found.is_none()
                && let Some(at) = text[start..end].find(token)
            {
                next.push((start, start + at, None));
                next.push((start + at, start + at + token.len(), Some(id)));
                start += at + token.len();
            }
            next.push((start, end, found));
        }
        fragments = next;
    }
    fragments.retain(|(start, end, _)| start < end);
    fragments
}

/// The tokenizers of the golden file, without those that lack bytes or add spaces.
fn trained() -> Vec<(String, Tokenizer)> {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/tokenizer_synthetic.json"))
            .unwrap();
    let strings = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect()
    };
    let build = |entry: &serde_json::Value| {
        let vocab = &entry["vocab"];
        let scores = vocab["scores"].as_array().into_iter().flatten();
        let mut vocab = Vocab {
            model: vocab["model"].as_str().unwrap().to_owned(),
            pre: Some(vocab["pre"].as_str().unwrap().to_owned()),
            tokens: strings(&vocab["tokens"]),
            scores: scores.map(|score| score.as_f64().unwrap() as f32).collect(),
            token_types: vocab["token_types"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_i64().unwrap() as i32)
                .collect(),
            merges: strings(&vocab["merges"]),
            add_space_prefix: Some(false),
            ..Vocab::default()
        };
        if vocab.model == "gpt2" {
            // U+00F4 and the spelling of ESC: the two bytes these vocabularies lack.
            vocab.tokens.extend(["\u{F4}".to_owned(), "\u{11B}".to_owned()]);
            vocab.token_types.extend([1, 1]);
        }
        (entry["name"].as_str().unwrap().to_owned(), Tokenizer::from_vocab(vocab).unwrap())
    };
    json["vocabularies"].as_array().unwrap().iter().map(build).collect()
}

/// Text of the pieces that rules and merges treat differently.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        proptest::sample::select(vec![
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "the",
            "The",
            "'s",
            "'LL",
            "12",
            "3",
            "a",
            "aa",
            "é",
            "e\u{301}",
            "中",
            "👍",
            "\u{200D}",
            "<|im_end|>",
            "<eos>",
            "===",
            "-->",
            "ab",
            "bab",
            "\0",
            "\u{1B}",
            "\u{10FFFF}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn merging_equals_merging_slowly(letters in proptest::collection::vec(0u32..3, 0..40), table in proptest::collection::vec((0u32..6, 0u32..6, 0u32..4), 1..12)) {
        let join = |left: u32, right: u32| {
            let place = table.iter().position(|&(a, b, _)| (a, b) == (left, right))?;
            // Some pairs share a rank.
            Some(Join { rank: table[place].2, id: 3 + place as u32 % 3 })
        };
        let mut merger = Merger::default();
        for at in 0..letters.len() {
            merger.push(at, at + 1);
        }
        let id = |symbol: &Symbol| symbol.id.unwrap_or(letters[symbol.start as usize]);
        merger.run(|left, right| join(id(left), id(right)));
        let found: Vec<u32> = merger.symbols().map(id).collect();
        prop_assert_eq!(found, merged_slowly(&letters, join));
    }

    #[test]
    fn partition_equals_llama_cpps(text in "[abc]{0,40}", tokens in proptest::collection::hash_set("[ab]{1,5}", 0..8)) {
        let tokens: Vec<String> = tokens.into_iter().collect();
        let kinds = vec![Kind::UserDefined; tokens.len()];
        let vocab = Vocab { tokens: tokens.clone(), ..Vocab::default() };
        let fragments = Specials::new(&vocab, &kinds).partition(&text, false);
        let found: Vec<_> = fragments.iter().map(|f| (f.start, f.end, f.id)).collect();
        let specials: Vec<_> = (0u32..).zip(tokens.iter().map(String::as_str)).collect();
        prop_assert_eq!(found, partitioned_slowly(&text, &specials));
    }

    /// `z` has no token: what merges on both sides of it must not merge across it.
    #[test]
    fn byte_merging_equals_merging_slowly(text in "[abz]{0,40}", picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12)) {
        let mut tokens = vec!["a".to_owned(), "b".to_owned()];
        let mut merges = Vec::new();
        for (left, right) in picks {
            let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
            let joined = format!("{left}{right}");
            // Some tokens are made by several merges, some merges are listed twice.
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
            merges.push(format!("{left} {right}"));
        }
        let id = |token: &str| tokens.iter().position(|other| other == token).unwrap() as u32;
        let join = |left: u32, right: u32| {
            let line = format!("{} {}", tokens[left as usize], tokens[right as usize]);
            let rank = merges.iter().position(|merge| *merge == line)? as u32;
            Some(Join { rank, id: id(&line.replace(' ', "")) })
        };
        let letters = text.split('z').map(|part| part.chars().map(|c| id(&c.to_string())).collect::<Vec<_>>());
        let expected: Vec<u32> = letters.flat_map(|letters| merged_slowly(&letters, join)).collect();
        let tokenizer = Tokenizer::from_vocab(Vocab {
            model: "gpt2".to_owned(),
            pre: Some("gpt-2".to_owned()),
            tokens: tokens.clone(),
            merges: merges.clone(),
            ..Vocab::default()
        });
        let spans = tokenizer.unwrap().encode_spans(&text, Special::Plain);
        let found: Vec<u32> = spans.iter().map(|span| span.id).collect();
        prop_assert_eq!(found, expected);
        for span in spans {
            prop_assert_eq!(&text[span.start..span.end], &tokens[span.id as usize]);
        }
    }
}

/// Cut at every seam, a text has the tokens it has whole.
#[test]
fn seams_change_no_token() {
    let text = "A plain text, of 1,234 words. It's here! (Where?) Yes: \"there.\" No \u{a0}space  two Dr. O'Neil's e.g. x_y \
                a\n b\tc ünd über Straße 東京 is big; And so on... ok -5 C++ is fun <x> y\r\n\r\nLast line. The end";
    let mut seen = 0;
    let spm =
        [("\u{2581}", -1.0, 1), ("\u{2581}a", -2.0, 1), ("is", -3.0, 1), ("\u{2581}is", -4.0, 1)];
    let mut tokenizers = trained();
    for pre in RULES {
        let vocab = bpe_vocab(pre, &["a n", "i s", "\u{120} a", "\u{120}a n", "t h", "th e"], &[]);
        tokenizers.push((pre.to_owned(), Tokenizer::from_vocab(vocab).unwrap()));
    }
    tokenizers.push(("spm".to_owned(), Tokenizer::from_vocab(spm_vocab(&spm)).unwrap()));
    for (name, tokenizer) in tokenizers {
        let whole = tokenizer.encode(text, Special::Plain).len();
        assert_eq!(tokenizer.count(text), whole, "{name}");
        let mut at = 0;
        while let Some(seam) = tokenizer.seam(text, at) {
            let parts = tokenizer.count(&text[..seam]) + tokenizer.count_rest(&text[seam..]);
            assert_eq!(parts, whole, "{name}: cut at {seam}: {:?}", &text[seam..]);
            at = seam + 1;
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
    // A token with a space inside, spelled in text, would be cut apart.
    let joined = spm_vocab(&[("to be", -1.0, 4)]);
    assert_eq!(Tokenizer::from_vocab(joined).unwrap().seam("or to be there", 0), None);
    let across = spm_vocab(&[("o\u{2581}b", -1.0, 1)]);
    assert_eq!(Tokenizer::from_vocab(across).unwrap().seam("to be there", 0), None);
}

#[test]
fn words_tile_the_text() {
    // Compiled once: a pattern takes longer to compile than to use.
    let splits = RULES.map(|pre| Split::named(pre).unwrap());
    proptest!(|(text in text())| {
        for split in &splits {
            prop_assert_eq!(split_words(split, &text).concat(), text.clone());
        }
    });
}

#[test]
fn bytes_and_spans_are_those_of_the_text() {
    let trained = trained();
    assert_eq!(trained.len(), 8);
    proptest!(|(text in text())| {
        for (name, tokenizer) in &trained {
            for special in [Special::Plain, Special::Parse] {
                let spans = tokenizer.encode_spans(&text, special);
                let ids: Vec<u32> = spans.iter().map(|span| span.id).collect();
                prop_assert_eq!(&ids, &tokenizer.encode(&text, special));
                let shown = tokenizer.decode(&ids, true);
                // To SentencePiece U+2581 is a space.
                let spaced = text.replace('\u{2581}', " ");
                prop_assert_eq!(&shown, if name.starts_with("spm") { &spaced } else { &text });
                prop_assert!(special == Special::Parse || ids.iter().all(|&id| !tokenizer.is_control(id)));
                let (mut start, mut end) = (0, 0);
                for span in &spans {
                    prop_assert!(span.start >= start && span.start <= end && span.end >= end, "{:?}", spans);
                    prop_assert!(text.get(span.start..span.end).is_some());
                    // Only parts of one character overlap.
                    prop_assert!(span.start == end || text[span.start..end].chars().count() == 1, "{:?}", spans);
                    (start, end) = (span.start, span.end);
                }
                prop_assert_eq!(end, text.len());
            }
        }
    });
}
