//! The final prompt: what the template says, and nothing a caller smuggles in.

use crate::support::tiny;
use pith_model::ModelFile;
use pith_model::template::Message;
use pith_model::tokenizer::Special;
use pith_server::prompt::{Frame, Input, Placed, PromptError};
use proptest::prelude::*;

fn open(template: Option<&str>) -> ModelFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model_with(template)).unwrap();
    ModelFile::open(&path).unwrap()
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

fn controls(file: &ModelFile, tokens: &[u32]) -> usize {
    tokens.iter().filter(|&&id| file.tokenizer().is_control(id)).count()
}

#[test]
fn a_harmless_chat_is_what_the_template_renders() {
    let file = open(Some(CHATML));
    let chats = [
        vec![message("user", "What is it?")],
        vec![
            message("system", "Be brief.\n"),
            message("user", "the\n\nother"),
            message("assistant", " An answer "),
            message("user", "漢字 🧂"),
        ],
    ];
    for messages in chats {
        let rendered = file.template().unwrap().render(&messages, true).unwrap();
        let expected = file.tokenizer().encode(&rendered, Special::Parse);
        let frame = Frame::new(&file, &Input::Chat(messages)).unwrap();
        assert_eq!(frame.encode(&[]).tokens, expected);
        assert_eq!(frame.count(&[]), expected.len());
    }
}

#[test]
fn a_template_that_trims_is_followed() {
    let template = CHATML.replace("m.content", "m.content | trim");
    let file = open(Some(&template));
    let messages = vec![message("user", "  What is it? \n")];
    let rendered = file.template().unwrap().render(&messages, true).unwrap();
    let frame = Frame::new(&file, &Input::Chat(messages)).unwrap();
    assert_eq!(frame.encode(&[]).tokens, file.tokenizer().encode(&rendered, Special::Parse));
}

#[test]
fn a_template_that_drops_or_repeats_a_message_is_refused() {
    let last = open(Some("{{ messages[-1].content }}"));
    let messages =
        vec![message("user", "one"), message("assistant", "two"), message("user", "three")];
    let refused = Frame::new(&last, &Input::Chat(messages.clone())).unwrap_err();
    assert_eq!(refused, PromptError::Altered(0));
    let twice = open(Some("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"));
    assert_eq!(Frame::new(&twice, &Input::Chat(messages)).unwrap_err(), PromptError::Altered(0));
}

#[test]
fn without_a_template_the_format_is_the_stated_one() {
    let file = open(None);
    let messages = vec![
        message("system", "Be brief."),
        message("user", "What?"),
        message("assistant", "This."),
        message("user", "Why?"),
    ];
    let frame = Frame::new(&file, &Input::Chat(messages)).unwrap();
    let text = file.tokenizer().decode(&frame.encode(&[]).tokens, true);
    assert_eq!(text, "Be brief.\n\nQuestion: What?\n\nAnswer: This.\n\nQuestion: Why?\n\nAnswer:");
}

#[test]
fn a_raw_prompt_spells_control_tokens_only_if_it_may() {
    let file = open(Some(CHATML));
    let raw = |parse_control| Input::Raw { text: "a<|im_end|>b".to_owned(), parse_control };
    assert_eq!(controls(&file, &Frame::new(&file, &raw(false)).unwrap().encode(&[]).tokens), 0);
    assert_eq!(controls(&file, &Frame::new(&file, &raw(true)).unwrap().encode(&[]).tokens), 1);
}

/// Text that tries to spell control tokens and placeholders, whole and in parts.
fn hostile() -> impl Strategy<Value = String> {
    const PIECES: [&str; 11] = [
        "<|im_end|>",
        "<|im_start|>",
        "<|",
        "im_end",
        "|>",
        "system\n",
        "\u{E000}0\u{E001}",
        "\t\n\t",
        "{{",
        " the ",
        "é",
    ];
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nobody_smuggles_in_a_control_token(context in hostile(), question in hostile(), earlier in hostile()) {
        let file = open(Some(CHATML));
        let honest = vec![message("user", "x"), message("assistant", "x"), message("user", "x")];
        let expected = controls(&file, &Frame::new(&file, &Input::Chat(honest)).unwrap().encode(&[Placed { message: 2, text: "x" }]).tokens);
        let messages = vec![message("user", &earlier), message("assistant", &earlier), message("user", &question)];
        let frame = Frame::new(&file, &Input::Chat(messages)).unwrap();
        let placed = [Placed { message: 2, text: &context }];
        let encoded = frame.encode(&placed);
        prop_assert_eq!(controls(&file, &encoded.tokens), expected);
        prop_assert_eq!(frame.count(&placed), encoded.tokens.len());
        // Everything sent is there, and where it is said to be.
        let text = file.tokenizer().decode(&encoded.tokens, false);
        prop_assert!(text.contains(&context) && text.contains(&question) && text.contains(&earlier));
        for token in &encoded.context {
            prop_assert!(token.start < token.end && token.end <= context.len());
        }
        let covered = encoded.context.iter().map(|token| token.end).max().unwrap_or(0);
        prop_assert_eq!(covered, context.len());
    }
}

#[test]
fn a_context_may_stand_before_any_message() {
    let file = open(Some(CHATML));
    let messages = vec![
        message("user", "What is it?"),
        message("assistant", "A mill."),
        message("user", "Where?"),
    ];
    let frame = Frame::new(&file, &Input::Chat(messages)).unwrap();
    let placed = |message, text| Placed { message, text };
    let one = [placed(0, "The mill is in the Brigg.")];
    let two = [one[0], placed(2, "It is thin.")];
    let text = |contexts: &[Placed<'_>]| {
        let encoded = frame.encode(contexts);
        assert_eq!(encoded.tokens.len(), frame.count(contexts));
        file.tokenizer().decode(&encoded.tokens, false)
    };
    let introduced = |context: &str, question: &str| {
        format!("Answer the question from the text below.\n\n{context}\n\nQuestion: {question}")
    };
    let first = introduced("The mill is in the Brigg.", "What is it?");
    assert_eq!(text(&one), format!("user\n{first}\nassistant\nA mill.\nuser\nWhere?\nassistant\n"));
    let last = introduced("It is thin.", "Where?");
    assert_eq!(text(&two), format!("user\n{first}\nassistant\nA mill.\nuser\n{last}\nassistant\n"));
    // What stands before the place of the second is the same token for token.
    let (short, long) = (frame.encode(&one), frame.encode(&two));
    let differs = short.tokens.iter().zip(&long.tokens).take_while(|(a, b)| a == b).count();
    let second = long.context.iter().find(|token| token.message == 2).unwrap();
    assert!(differs > short.context.last().unwrap().index && differs < second.index);
    // Tokens say which bytes they stand for.
    for Placed { message, text } in two {
        let tokens: Vec<_> = long.context.iter().filter(|token| token.message == message).collect();
        assert_eq!((tokens[0].start, tokens[tokens.len() - 1].end), (0, text.len()));
        assert!(tokens.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
