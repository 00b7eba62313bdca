//! Documents sent as files: their text is what is selected and cited, and every span leads back to the file.

use std::time::{Duration, Instant};

use pith_client::{Client, Code, v1};

use crate::support::{canary, document, rejection, request, retrieve, serve};

pub(crate) const PAGE: &str = "<html><head><title>The harbour</title><script>var a = 'The lighthouse is 7 metres tall.'</script></head>\
    <body><h1>Harbour</h1><p>The café by the pier 😀 opens at nine.</p>\n<p>Its   lighthouse&nbsp;is <b>42</b>\n metres &amp; a half tall.</p>\
    <p>Ships carry salt, wool and tin.</p></body></html>";

fn sent(mime: &str, blob: &[u8]) -> v1::Document {
    v1::Document { mime: mime.to_owned(), blob: blob.to_vec(), ..document("file", "") }
}

fn page() -> v1::Document {
    v1::Document { mime: "text/html".to_owned(), ..document("page", PAGE) }
}

/// A file of pages that show a line each.
pub(crate) fn pdf(lines: &[&str], trailer: &str) -> Vec<u8> {
    let kids: String = (0..lines.len()).map(|page| format!("{} 0 R ", 4 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Kids [{kids}] /Count {} /Resources << /Font << /F 3 0 R >> >> >>",
            lines.len()
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
            .to_owned(),
    ];
    for (page, line) in lines.iter().enumerate() {
        let content = format!("BT /F 12 Tf 72 720 Td ({line}) Tj ET");
        objects.push(format!("<< /Type /Page /Parent 2 0 R /Contents {} 0 R >>", 5 + 2 * page));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    let mut file = "%PDF-1.4\n".to_owned();
    for (index, object) in objects.iter().enumerate() {
        file += &format!("{} 0 obj\n{object}\nendobj\n", index + 1);
    }
    file += &format!("trailer\n<< /Root 1 0 R {trailer} >>\n%%EOF\n");
    file.into_bytes()
}

/// `text` from unit `start` to `end`.
pub(crate) fn cut(unit: v1::OffsetUnit, text: &str, start: u64, end: u64) -> String {
    let range = start as usize..end as usize;
    match unit {
        v1::OffsetUnit::Utf8Byte => text[range].to_owned(),
        v1::OffsetUnit::Utf16 => {
            let units: Vec<u16> = text.encode_utf16().collect();
            String::from_utf16(&units[range]).unwrap()
        }
        _ => text.chars().skip(range.start).take(range.len()).collect(),
    }
}

async fn compress(
    client: &Client,
    unit: v1::OffsetUnit,
    question: &str,
    tokens: u32,
    documents: Vec<v1::Document>,
) -> v1::CompressResponse {
    let request = v1::CompressRequest {
        query: question.to_owned(),
        documents,
        policy: Some(retrieve(tokens)),
        offset_unit: unit.into(),
        with_extracted_text: true,
        ..Default::default()
    };
    client.compress(request).await.unwrap()
}

#[tokio::test]
async fn spans_of_a_page_lead_to_its_source_in_every_unit() {
    let server = serve().await;
    let client = server.client().await;
    let as_blob = v1::Document { blob: PAGE.into(), text: String::new(), ..page() };
    for document in [page(), as_blob] {
        for unit in [v1::OffsetUnit::Utf8Byte, v1::OffsetUnit::CodePoint, v1::OffsetUnit::Utf16] {
            let question = "How tall is the lighthouse?";
            let compressed = compress(&client, unit, question, 70, vec![document.clone()]).await;
            let report = compressed.report.unwrap();
            let [extracted] = report.extracted.as_slice() else { panic!("{report:?}") };
            assert_eq!(extracted.document_id, "page");
            assert_eq!(
                extracted.text,
                "Harbour\n\nThe café by the pier 😀 opens at nine.\n\nIts lighthouse\u{a0}is 42 metres & a half tall.\n\n\
                 Ships carry salt, wool and tin."
            );
            assert!(compressed.text.starts_with("[1] The harbour\n"), "{}", compressed.text);
            assert!(!report.dropped.is_empty(), "nothing was dropped, so the case says little");
            let kept = report.kept.iter().find(|kept| {
                let span = kept.span.as_ref().unwrap();
                cut(unit, &extracted.text, span.start, span.end).contains("lighthouse")
            });
            let original = kept.unwrap().original.unwrap();
            assert_eq!((original.first_page, original.last_page), (0, 0));
            assert_eq!(
                cut(unit, PAGE, original.start, original.end).trim_end_matches("</p><p>"),
                "Its   lighthouse&nbsp;is <b>42</b>\n metres &amp; a half tall.",
                "{unit:?}"
            );
            assert!(report.stages.iter().any(|stage| stage.stage == "extract"));
        }
    }
}

/// The tiny model is made to say one word, which stands on the page with a tag inside.
#[tokio::test]
async fn citations_lead_to_the_source_of_the_page() {
    let server = serve().await;
    let client = server.client().await;
    let the = v1::TokenizeRequest { text: "the".to_owned(), ..Default::default() };
    let [the] = client.tokenize(the).await.unwrap().token_ids[..] else { panic!("several tokens") };
    let source = "<p>Caf&eacute; 😀 one.</p><p>A word: the<b>the</b>the&#116;he.</p>";
    let page = v1::Document { mime: "text/html".to_owned(), ..document("page", source) };
    let answer = client
        .generate_unary(v1::GenerateRequest {
            documents: vec![page],
            sampling: Some(v1::SamplingParams {
                logit_bias: [(the, 100.0)].into(),
                ..Default::default()
            }),
            output: Some(v1::OutputOptions {
                cite: true,
                with_extracted_text: true,
                offset_unit: v1::OffsetUnit::Utf16.into(),
                ..Default::default()
            }),
            ..request("Which word?", 4)
        })
        .await
        .unwrap();
    assert_eq!(answer.text, "thethethethe");
    let text = &answer.report.unwrap().extracted[0].text;
    let cited = &answer.citations[0].sources[0];
    let span = cited.span.as_ref().unwrap();
    assert_eq!(cited.cited_text, "A word: thethethethe.");
    assert_eq!(cut(v1::OffsetUnit::Utf16, text, span.start, span.end), cited.cited_text);
    let original = cited.original.unwrap();
    assert_eq!(
        cut(v1::OffsetUnit::Utf16, source, original.start, original.end),
        "A word: the<b>the</b>the&#116;he."
    );
}

#[tokio::test]
async fn a_generation_reports_originals_and_the_text_only_if_asked() {
    let server = serve().await;
    let client = server.client().await;
    let asked = v1::GenerateRequest {
        documents: vec![page()],
        policy: Some(retrieve(300)),
        output: Some(v1::OutputOptions { cite: true, ..Default::default() }),
        ..request("How tall is the lighthouse?", 2)
    };
    let report = client.generate_unary(asked.clone()).await.unwrap().report.unwrap();
    assert!(report.extracted.is_empty());
    let [whole] = report.kept.as_slice() else { panic!("{report:?}") };
    let original = whole.original.unwrap();
    let source = cut(v1::OffsetUnit::CodePoint, PAGE, original.start, original.end);
    assert!(source.starts_with("Harbour</h1>") && source.ends_with("tin."), "{source}");
    let output = v1::OutputOptions { with_extracted_text: true, ..Default::default() };
    let told = v1::GenerateRequest { output: Some(output), ..asked };
    let report = client.generate_unary(told).await.unwrap().report.unwrap();
    assert_eq!(report.extracted.len(), 1);

    // What is sent as text stands where it stands.
    let plain = v1::Document {
        mime: "text/x-rust".to_owned(),
        ..document("code", "fn main() {\n    go();\n}\n")
    };
    let compressed =
        compress(&client, v1::OffsetUnit::Utf8Byte, "What goes?", 100, vec![plain]).await;
    let report = compressed.report.unwrap();
    assert!(report.extracted.is_empty() && report.kept.iter().all(|kept| kept.original.is_none()));
}

#[tokio::test]
async fn spans_of_a_pdf_lead_to_its_pages() {
    let server = serve().await;
    let client = server.client().await;
    let lines =
        ["The harbour is old.", "The lighthouse is 42 metres tall.", "Ships carry salt and tin."];
    let document = sent("application/pdf", &pdf(&lines, ""));
    let compressed = compress(
        &client,
        v1::OffsetUnit::Utf8Byte,
        "How tall is the lighthouse?",
        40,
        vec![document],
    )
    .await;
    let report = compressed.report.unwrap();
    assert_eq!(report.extracted[0].text, lines.join("\n\n"));
    let kept = &report.kept[0];
    let span = kept.span.as_ref().unwrap();
    assert_eq!(
        cut(v1::OffsetUnit::Utf8Byte, &report.extracted[0].text, span.start, span.end).trim(),
        lines[1]
    );
    let original = kept.original.unwrap();
    assert_eq!(
        (original.start, original.end, original.first_page, original.last_page),
        (0, 0, 2, 2)
    );
}

#[tokio::test]
async fn bad_files_are_refused_by_name_and_nobody_else_notices() {
    let server = serve().await;
    let client = server.client().await;
    let before = canary(&client).await;
    let both = v1::Document { text: "text".into(), ..sent("text/plain", b"blob") };
    let encrypted = pdf(&["secret"], "/Encrypt << /Filter /Standard >>");
    let cases: &[(&str, &str, v1::Document)] = &[
        ("documents[1].blob", "INVALID_FIELD", both),
        ("documents[1].text", "INVALID_FIELD", sent("text/plain", b"")),
        ("documents[1].mime", "INVALID_FIELD", sent("image/png", b"x")),
        ("documents[1].blob", "MALFORMED_DOCUMENT", sent("application/pdf", b"not a file")),
        (
            "documents[1].blob",
            "MALFORMED_DOCUMENT",
            sent("application/pdf", b"%PDF-1.4\n1 0 obj << [[ ("),
        ),
        ("documents[1].blob", "ENCRYPTED_DOCUMENT", sent("application/pdf", &encrypted)),
        ("documents[1].blob", "NO_TEXT", sent("application/pdf", &pdf(&[""], ""))),
        (
            "documents[1].text",
            "NO_TEXT",
            v1::Document { mime: "text/html".into(), ..document("a", "<script>x</script>") },
        ),
        ("documents[1].blob", "INVALID_ENCODING", sent("text/markdown", b"caf\xe9 open")),
        (
            "documents[1].blob",
            "INVALID_ENCODING",
            sent("text/html", b"<meta charset=shift_jis>\x83\x65"),
        ),
        (
            "documents[1].blob",
            "DOCUMENT_TOO_LARGE",
            sent("text/html", "<i>".repeat((4 << 20) + 1).as_bytes()),
        ),
    ];
    for (field, reason, document) in cases {
        let bad = v1::GenerateRequest {
            documents: vec![page(), document.clone()],
            ..request("What?", 2)
        };
        let refused = rejection(client.generate(bad).await);
        assert_eq!(refused.code, Code::InvalidArgument, "{field}: {refused:?}");
        assert_eq!(refused.reason.as_deref(), Some(*reason), "{refused:?}");
        assert_eq!(refused.violations[0].field, *field, "{refused:?}");
        if *reason == "INVALID_ENCODING" {
            assert!(["3", "24"].contains(&&*refused.metadata["byte_offset"]), "{refused:?}");
        }
    }
    assert_eq!(canary(&client).await, before);
    server.idle().await;
}

#[tokio::test]
async fn deep_and_endless_files_are_read_in_time() {
    let server = serve().await;
    let client = server.client().await;
    let deep = format!("{}<p>The lighthouse is 42 metres tall.", "<div>".repeat(100_000));
    let clock = Instant::now();
    let compressed = compress(
        &client,
        v1::OffsetUnit::Utf8Byte,
        "How tall?",
        100,
        vec![sent("text/html", deep.as_bytes())],
    )
    .await;
    assert!(compressed.text.contains("42 metres"));
    assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());

    // Five megabytes of one word.
    let word = "x".repeat(5 << 20);
    for mime in ["text/plain", "text/html", "text/x-source"] {
        let asked = v1::CompressRequest {
            query: "What?".to_owned(),
            documents: vec![sent(mime, word.as_bytes())],
            policy: Some(retrieve(100)),
            ..Default::default()
        };
        let clock = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(60), client.compress(asked)).await;
        match answer.unwrap() {
            Ok(compressed) => assert!(!compressed.text.is_empty()),
            // The word's parts are longer than the budget.
            Err(error) => {
                let refused = rejection::<()>(Err(error));
                assert_eq!(refused.reason.as_deref(), Some("BUDGET_TOO_SMALL"), "{refused:?}");
            }
        }
        assert!(clock.elapsed() < Duration::from_secs(60), "{mime}: {:?}", clock.elapsed());
    }
    server.idle().await;
}
