//! `tokenizer.json` files of every kind that is read, against the ids of the library that writes them.

use pith_model::tokenizer::Special;
use serde_json::{Value, json};

use crate::folder_writer::{Folder, HIDDEN};

#[test]
fn tokens_are_those_of_the_reference() {
    let golden: Value =
        serde_json::from_str(include_str!("../fixtures/folder_tokenizers.json")).unwrap();
    let texts: Vec<&str> =
        golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let tokenizers = golden["tokenizers"].as_array().unwrap();
    assert!(texts.len() > 100 && tokenizers.len() == 7);
    for tokenizer in tokenizers {
        let name = &tokenizer["name"];
        // Padded, as models are.
        let vocab = 800;
        let mut folder = Folder::sound("llama").set("vocab_size", json!(vocab));
        folder.tensor("model.embed_tokens.weight", &[vocab, HIDDEN]);
        folder.tokenizer = tokenizer["json"].clone();
        let first = matches!(name.as_str().unwrap(), "llama3" | "gemma" | "llama2");
        if first {
            let bos = if name == "llama3" { "<|begin_of_text|>" } else { "<s>" };
            let config = json!({ "bos_token": bos });
            folder = folder.file("tokenizer_config.json", config.to_string());
        }
        let model = folder.open().unwrap();
        let ours = model.tokenizer();
        assert_eq!(ours.prompt_bos().is_some(), first, "{name}");
        for (text, ids) in texts.iter().zip(tokenizer["ids"].as_array().unwrap()) {
            // Null: characters would be composed first.
            let Some(ids) = ids.as_array() else { continue };
            let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let spelled = |ids: &[u32]| {
                ids.iter().map(|&id| ours.piece(id).unwrap().to_owned()).collect::<Vec<_>>()
            };
            let found = ours.encode(text, Special::Parse);
            assert_eq!(
                found,
                ids,
                "{name}, {text:?}: {:?}, not {:?}",
                spelled(&found),
                spelled(&ids)
            );
        }
    }
}
