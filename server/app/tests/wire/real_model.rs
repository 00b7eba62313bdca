//! The whole path on SmolLM2-135M-Instruct: what the tiny model cannot show, because it makes no sense.

use pith_client::v1;
use pith_model::ModelFile;
use pith_model::template::Message;
use pith_model::tokenizer::Special;
use pith_server::hub;
use pith_server::prompt::{Frame, Input};

use crate::support::{document, essay, request, retrieve, serve_with};

const MODEL: &str = "smollm2";

#[test]
fn its_own_template_is_kept_to_the_token() {
    let file = ModelFile::open(&hub::resolve(MODEL).unwrap().path).unwrap();
    let message =
        |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let chat = vec![
        message("system", "You are brief."),
        message("user", "What's 12,345 + 6?\n\nShow  it."),
        message("assistant", " It is 12,351.\n"),
        message("user", "\u{8c22}\u{8c22} \u{1f642}  and\tin French?"),
    ];
    let rendered = file.template().unwrap().render(&chat, true).unwrap();
    let expected = file.tokenizer().encode(&rendered, Special::Parse);
    let frame = Frame::new(&file, &Input::Chat(chat)).unwrap();
    assert_eq!(frame.encode(&[]).tokens, expected);
}

#[tokio::test]
async fn it_answers_from_a_document_it_could_not_hold_and_cites_it() {
    let server = serve_with(|config| {
        config.model.name = MODEL.to_owned();
        config.cpu.threads = 0;
        config.cpu.kv_mib = 256;
    })
    .await;
    let needle = "The name of the lighthouse keeper is Agatha Quillfeather.";
    let text = format!("{}{needle}\n\n{}", essay(200), essay(200));
    let mut asked = request("What is the name of the lighthouse keeper?", 24);
    asked.stop.as_mut().unwrap().ignore_end = false;
    asked.documents = vec![document("harbours", &text)];
    asked.policy = Some(retrieve(200));
    asked.output = Some(v1::OutputOptions { cite: true, ..Default::default() });
    let answer = server.client().await.generate_unary(asked).await.unwrap();
    let report = answer.report.unwrap();
    assert!(report.tokens_before > 8192 && report.tokens_after <= 200, "{report:?}");
    assert!(answer.text.contains("Agatha Quillfeather"), "{:?}", answer.text);
    let quoted = answer.citations.iter().flat_map(|citation| &citation.sources);
    assert!(quoted.into_iter().any(|source| source.cited_text == needle), "{:?}", answer.citations);
}
