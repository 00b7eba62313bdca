//! Pages, PDFs and encoded text are stored as they are read when sent along, and come back as they were uploaded.

use super::*;
use crate::files::{PAGE, cut, pdf};
use crate::support::{canary, retrieve};

const UNITS: [v1::OffsetUnit; 3] =
    [v1::OffsetUnit::Utf8Byte, v1::OffsetUnit::CodePoint, v1::OffsetUnit::Utf16];
const QUESTION: &str = "How tall is the lighthouse?";

/// Files of every kind, by name, with their types.
fn files() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let latin = "<meta charset=iso-8859-1><h1>Café</h1><p>Its lighthouse is naïve.</p><p>It is 7 m tall.</p>";
    let marked: Vec<u8> = "# Head\n\nThe lighthouse 😀 is 42 m tall.\n\nThe mole is long.\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let pages = ["The harbour is old.", "The lighthouse is 42 metres tall.", "Ships carry salt."];
    vec![
        ("page", "text/html", PAGE.into()),
        ("latin", "Text/HTML; x=y", latin.chars().map(|c| c as u8).collect()),
        ("marked", "text/markdown", [b"\xff\xfe".as_slice(), &marked].concat()),
        (
            "latin text",
            "text/plain; charset=latin1",
            b"A caf\xe9. A lighthouse, 9 m tall.".to_vec(),
        ),
        ("pdf", "application/pdf", pdf(&pages, "")),
    ]
}

fn typed(id: &str, mime: &str) -> v1::PutDocumentHeader {
    v1::PutDocumentHeader { mime: mime.into(), ..header(id) }
}

fn asked(unit: v1::OffsetUnit, document: v1::Document) -> v1::CompressRequest {
    v1::CompressRequest {
        query: QUESTION.into(),
        documents: vec![document],
        policy: Some(retrieve(30)),
        offset_unit: unit.into(),
        with_extracted_text: true,
        ..Default::default()
    }
}

fn stored(id: &str) -> v1::Document {
    v1::Document { id: "same".into(), stored_id: id.into(), ..Default::default() }
}

/// What a response says of the document, times aside.
fn said(response: v1::CompressResponse) -> (String, v1::CompressionReport) {
    let report = response.report.unwrap();
    (response.text, v1::CompressionReport { stages: Vec::new(), ..report })
}

#[tokio::test]
async fn a_stored_file_is_as_good_as_one_sent_along_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut server = serve_on(path.clone()).await;
    let mut client = server.client().await;
    for (id, mime, file) in files() {
        let put = client.put_document(typed(id, mime), file.as_slice()).await.unwrap();
        let document = put.document.unwrap();
        assert_eq!((document.mime.as_str(), document.original_bytes), (mime, file.len() as u64));
        assert!(!client.put_document(typed(id, mime), file).await.unwrap().created);
    }
    for round in 0..2 {
        for (id, mime, file) in files() {
            for unit in UNITS {
                let sent = v1::Document {
                    id: "same".into(),
                    mime: mime.into(),
                    blob: file.clone(),
                    ..Default::default()
                };
                let sent = said(client.compress(asked(unit, sent)).await.unwrap());
                let kept = said(client.compress(asked(unit, stored(id))).await.unwrap());
                assert_eq!(kept, sent, "{id}, {unit:?}, round {round}");
                let report = kept.1;
                assert_eq!(report.extracted.len(), 1, "{id}");
                let leads_back = report.kept.iter().all(|kept| kept.original.is_some());
                assert_eq!(leads_back, ["page", "latin", "pdf"].contains(&id), "{id}");
            }
        }
        if round == 0 {
            drop(client);
            server = restart(server, path.clone()).await;
            client = server.client().await;
        }
    }
    let titled = client.list_documents(v1::ListDocumentsRequest::default()).await.unwrap();
    let titles: Vec<_> = titled.documents.iter().map(|d| (d.id.as_str(), &*d.title)).collect();
    assert!(
        titles.contains(&("page", "The harbour")) && titles.contains(&("pdf", "")),
        "{titles:?}"
    );
}

#[tokio::test]
async fn what_was_uploaded_comes_back_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_on(path.clone()).await;
    let client = server.client().await;
    let named = |id: &str| v1::GetDocumentRequest { id: id.to_owned(), ..Default::default() };
    let large = format!("<p>{}", "The quay is made of stone &amp; wood. ".repeat(5000));
    let plain = guide();
    let mut all = files();
    all.push(("large", "text/html", large.into_bytes()));
    all.push(("plain", "", plain.clone().into_bytes()));
    for (id, mime, file) in &all {
        let head = client.put_document(typed(id, mime), file.as_slice()).await.unwrap().document;
        let (document, original) = client.get_original(named(id)).await.unwrap();
        assert_eq!((Some(document), &original), (head, file), "{id}");
        let part = v1::GetDocumentRequest {
            start: 3,
            end: Some(file.len() as u64 - 2),
            offset_unit: v1::OffsetUnit::CodePoint.into(),
            ..named(id)
        };
        let (_, some) = client.get_original(part).await.unwrap();
        assert_eq!(some, file[3..file.len() - 2], "{id}");
        let beyond = v1::GetDocumentRequest { start: u64::MAX, ..named(id) };
        assert_eq!(client.get_original(beyond).await.unwrap().1, b"");
    }
    // Without asking for it, the text that spans refer to.
    let text = get(&client, "page").await.unwrap().1;
    assert!(text.starts_with("Harbour\n\nThe café") && !text.contains('<'), "{text}");
    assert_eq!(get(&client, "plain").await.unwrap().1, plain);

    for (id, ..) in &all {
        client.delete_document(*id).await.unwrap();
        let gone = rejection(client.get_original(named(id)).await);
        assert_eq!((gone.code, gone.reason.as_deref()), (Code::NotFound, Some("UNKNOWN_DOCUMENT")));
    }
    let left = std::fs::read_dir(path.join("documents/1")).unwrap().count();
    assert_eq!(left, 0, "files of deleted documents");
}

#[tokio::test]
async fn what_is_found_leads_to_the_source() {
    let server = serve().await;
    let client = server.client().await;
    for (id, mime, file) in files() {
        client.put_document(typed(id, mime), file).await.unwrap();
    }
    for unit in UNITS {
        let search = v1::SearchRequest {
            query: QUESTION.into(),
            offset_unit: unit.into(),
            ..Default::default()
        };
        let found = client.search(search).await.unwrap().hits;
        let of = |id: &str| {
            found.iter().find(|hit| hit.span.as_ref().unwrap().document_id == id).unwrap()
        };
        let original = of("page").original.unwrap();
        let source = cut(unit, PAGE, original.start, original.end);
        assert!(source.contains("lighthouse&nbsp;is <b>42</b>"), "{source}");
        let original = of("pdf").original.unwrap();
        assert!((original.first_page..=original.last_page).contains(&2), "{original:?}");
        assert_eq!(of("marked").original, None);
    }
}

/// The tiny model is made to say one word, which stands on the page with a tag inside.
#[tokio::test]
async fn citations_of_a_stored_page_lead_to_its_source() {
    let server = serve().await;
    let client = server.client().await;
    let the = v1::TokenizeRequest { text: "the".to_owned(), ..Default::default() };
    let [the] = client.tokenize(the).await.unwrap().token_ids[..] else { panic!("several tokens") };
    let source = "<p>Caf&eacute; 😀 one.</p><p>A word: the<b>the</b>the&#116;he.</p>";
    client.put_document(typed("page", "text/html"), source).await.unwrap();
    let mut asked = v1::GenerateRequest {
        documents: vec![stored("page")],
        sampling: Some(v1::SamplingParams {
            logit_bias: [(the, 100.0)].into(),
            ..Default::default()
        }),
        output: Some(v1::OutputOptions { cite: true, ..Default::default() }),
        ..request("Which word?", 4)
    };
    let kept = client.generate_unary(asked.clone()).await.unwrap();
    let cited = kept.citations[0].sources[0].clone();
    let original = cited.original.unwrap();
    let from = cut(v1::OffsetUnit::CodePoint, source, original.start, original.end);
    assert_eq!(from, "A word: the<b>the</b>the&#116;he.");
    let sent = v1::Document {
        id: "same".into(),
        mime: "text/html".into(),
        text: source.into(),
        ..Default::default()
    };
    asked.documents = vec![sent];
    assert_eq!(client.generate_unary(asked).await.unwrap().citations, kept.citations);
}

#[tokio::test]
async fn bad_files_are_refused_by_name_and_nothing_is_stored() {
    let server = serve().await;
    let client = server.client().await;
    let before = canary(&client).await;
    let encrypted = pdf(&["secret"], "/Encrypt << /Filter /Standard >>");
    let deep = "<i>".repeat((4 << 20) + 1);
    let cases: &[(&str, &str, &str, &[u8])] = &[
        ("header.mime", "INVALID_FIELD", "image/png", b"x"),
        ("data", "MALFORMED_DOCUMENT", "application/pdf", b"not a file"),
        ("data", "ENCRYPTED_DOCUMENT", "application/pdf", &encrypted),
        ("data", "NO_TEXT", "application/pdf", &pdf(&[""], "")),
        ("data", "NO_TEXT", "text/html", b"<script>x</script>"),
        ("data", "NO_TEXT", "text/plain", b" \n"),
        ("data", "INVALID_ENCODING", "text/markdown", b"caf\xe9 open"),
        ("data", "INVALID_ENCODING", "text/html", b"<meta charset=shift_jis>\x83\x65"),
        ("data", "DOCUMENT_TOO_LARGE", "text/html", deep.as_bytes()),
    ];
    for (field, reason, mime, file) in cases {
        let refused = rejection(client.put_document(typed("bad", mime), *file).await);
        assert_eq!(refused.code, Code::InvalidArgument, "{field}: {refused:?}");
        assert_eq!(refused.reason.as_deref(), Some(*reason), "{refused:?}");
        assert_eq!(refused.violations[0].field, *field, "{refused:?}");
    }
    assert!(ids(&client).await.is_empty());
    assert_eq!(canary(&client).await, before);
}

#[tokio::test]
async fn a_stored_file_has_been_read_and_takes_no_other_type() {
    let server = serve().await;
    let client = server.client().await;
    for (id, mime, file) in files() {
        client.put_document(typed(id, mime), file).await.unwrap();
    }
    let unit = v1::OffsetUnit::Utf8Byte;
    let retyped = |id, mime: &str| {
        client.compress(asked(unit, v1::Document { mime: mime.to_owned(), ..stored(id) }))
    };
    for (id, mime) in [("page", "text/html"), ("pdf", "application/pdf"), ("marked", "text/plain")]
    {
        assert!(retyped(id, mime).await.is_ok(), "{id}");
    }
    for (id, mime) in [("page", "text/plain"), ("pdf", "text/html"), ("marked", "text/html")] {
        let refused = rejection(retyped(id, mime).await);
        let named = (refused.code, refused.violations[0].field.as_str());
        assert_eq!(named, (Code::InvalidArgument, "documents[0].mime"), "{refused:?}");
    }
}
