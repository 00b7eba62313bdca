//! The final prompt: what the template says, and nothing a caller smuggles in.

use crate::support::tiny;
use pith_model::ModelFile;
use pith_model::template::Message;
use pith_model::tokenizer::Special;
use pith_server::prompt::{Frame, Input, PromptError};
use proptest::prelude::*;

fn open(template: Option<&str>) -> ModelFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model_with(template)).unwrap();
    ModelFile::open(&path).unwrap()
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

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
        let frame = Frame::new(&file, &Input::Chat(messages), false).unwrap();
        assert_eq!(frame.encode("").tokens, expected);
        assert_eq!(frame.count(""), expected.len());
    }
}

#[test]
fn a_template_that_trims_is_followed() {
    let template = CHATML.replace("m.content", "m.content | trim");
    let file = open(Some(&template));
    let messages = vec![message("user", "  What is it? \n")];
    let rendered = file.template().unwrap().render(&messages, true).unwrap();
    let frame = Frame::new(&file, &Input::Chat(messages), false).unwrap();
    assert_eq!(frame.encode("").tokens, file.tokenizer().encode(&rendered, Special::Parse));
}

#[test]
fn a_template_that_drops_or_repeats_a_message_is_refused() {
    let last = open(Some("{{ messages[-1].content }}"));
    let messages =
        vec![message("user", "one"), message("assistant", "two"), message("user", "three")];
    let refused = Frame::new(&last, &Input::Chat(messages.clone()), false).unwrap_err();
    assert_eq!(refused, PromptError::Altered(0));
    let twice = open(Some("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"));
    assert_eq!(
        Frame::new(&twice, &Input::Chat(messages), false).unwrap_err(),
        PromptError::Altered(0)
    );
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
    let frame = Frame::new(&file, &Input::Chat(messages), false).unwrap();
    let text = file.tokenizer().decode(&frame.encode("").tokens, true);
    assert_eq!(text, "Be brief.\n\nQuestion: What?\n\nAnswer: This.\n\nQuestion: Why?\n\nAnswer:");
}

#[test]
fn a_raw_prompt_spells_control_tokens_only_if_it_may() {
    let file = open(Some(CHATML));
    let raw = |parse_control| Input::Raw { text: "a<|im_end|>b".to_owned(), parse_control };
    assert_eq!(
        controls(&file, &Frame::new(&file, &raw(false), false).unwrap().encode("").tokens),
        0
    );
    assert_eq!(
        controls(&file, &Frame::new(&file, &raw(true), false).unwrap().encode("").tokens),
        1
    );
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
        let expected = controls(&file, &Frame::new(&file, &Input::Chat(honest), true).unwrap().encode("x").tokens);
        let messages = vec![message("user", &earlier), message("assistant", &earlier), message("user", &question)];
        let frame = Frame::new(&file, &Input::Chat(messages), true).unwrap();
        let encoded = frame.encode(&context);
        prop_assert_eq!(controls(&file, &encoded.tokens), expected);
        prop_assert_eq!(frame.count(&context), encoded.tokens.len());
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
