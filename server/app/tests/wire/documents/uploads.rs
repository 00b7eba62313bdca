//! Uploads are bounded, and those that break off leave nothing.

use std::path::Path;

use super::*;
use crate::support::channel;

fn uploads(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("uploads")).unwrap().count()
}

#[tokio::test]
async fn uploads_are_bounded_and_those_that_break_off_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_with(|config| {
        config.store.dir = path.to_str().unwrap().to_owned();
        config.store.max_document_mib = 2;
        config.store.max_documents = 2;
    })
    .await;
    let client = server.client().await;
    let refused = |result, code, reason: &str, field: &str| {
        let refused: pith_client::Rejection = rejection::<v1::PutDocumentResponse>(result);
        assert_eq!((refused.code, refused.reason.as_deref()), (code, Some(reason)), "{refused:?}");
        if !field.is_empty() {
            assert_eq!(refused.violations[0].field, field);
        }
    };
    let bad = Code::InvalidArgument;
    let large = "word ".repeat((2 << 20) / 5 + 1);
    let sent = client.put_document(header("large"), large.as_str()).await;
    refused(sent, bad, "DOCUMENT_TOO_LARGE", "data");
    refused(client.put_document(header("empty"), "").await, bad, "INVALID_FIELD", "data");
    refused(client.put_document(header("a@b"), "x").await, bad, "INVALID_FIELD", "header.id");
    refused(client.put_document(header(""), "x").await, bad, "INVALID_FIELD", "header.id");
    let image = v1::PutDocumentHeader { mime: "image/png".into(), ..header("image") };
    refused(client.put_document(image, "x").await, bad, "INVALID_FIELD", "header.mime");

    // What is not text, or comes in the wrong order.
    use v1::put_document_request::Part;
    let mut raw =
        v1::documents_client::DocumentsClient::new(channel(server.running.endpoint()).await);
    let message = |part| v1::PutDocumentRequest { part: Some(part) };
    let end = Part::End(v1::PutDocumentEnd {});
    let cases = [
        (vec![Part::Header(header("x")), Part::Data(b"ab\xff".to_vec()), end.clone()], "data"),
        (vec![Part::Header(header("x")), Part::Data(b"not whole".to_vec())], "end"),
        (vec![Part::Header(header("x")), end.clone()], "data"),
        (vec![Part::Data(b"first".to_vec())], "header"),
        (vec![Part::Header(header("x")), Part::Header(header("x"))], "header"),
        (vec![], "header"),
    ];
    for (parts, field) in cases {
        let messages: Vec<_> = parts.into_iter().map(message).collect();
        let status = raw.put_document(tokio_stream::iter(messages)).await.unwrap_err();
        let refused = pith_client::Rejection::from(&status);
        assert_eq!((refused.code, refused.violations[0].field.as_str()), (bad, field));
    }

    // A caller that vanishes in the middle: the upload was there, and goes.
    let (sender, parts) = tokio::sync::mpsc::channel(1);
    let call = tokio::spawn(async move {
        raw.put_document(tokio_stream::wrappers::ReceiverStream::new(parts)).await
    });
    sender.send(message(Part::Header(header("half")))).await.unwrap();
    sender.send(message(Part::Data(vec![b'x'; 1_500_000]))).await.unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while uploads(&path) == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    call.abort();
    while uploads(&path) > 0 {
        assert!(Instant::now() < until, "an upload is left over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&client).await, [""; 0]);

    put(&client, "a", "x").await;
    put(&client, "b", "x").await;
    let sent = client.put_document(header("c"), "x").await;
    refused(sent, Code::ResourceExhausted, "STORE_QUOTA", "");
    assert_eq!(ids(&client).await, ["a", "b"]);
}
