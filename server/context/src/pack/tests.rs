use super::*;

fn documents(titles: &[Option<&str>]) -> Vec<Document> {
    let document = |title: &Option<&str>| Document {
        title: title.map(str::to_owned),
        text: "One. Two. Three.".to_owned(),
        ..Document::default()
    };
    titles.iter().map(document).collect()
}

fn span(document: usize, start: usize, end: usize) -> Span {
    Span { document, start, end }
}

#[test]
fn gaps_and_documents_are_marked() {
    let documents = documents(&[Some("A\n  title"), None, None]);
    let packed = pack(&documents, [span(0, 0, 4), span(0, 10, 16), span(2, 5, 9)]);
    assert_eq!(packed.text, "[1] A title\nOne.\n...\nThree.\n\n[3]\nTwo.");
    let texts: Vec<&str> =
        packed.pieces.iter().map(|piece| &packed.text[piece.packed.clone()]).collect();
    assert_eq!(texts, ["One.", "Three.", "Two."]);
}

#[test]
fn a_lone_untitled_document_stands_as_it_is() {
    let documents = documents(&[None]);
    let packed = pack(&documents, wholes(&documents, |_| true));
    assert_eq!(packed.text, documents[0].text);
    assert_eq!(header(&documents, 0), "");
}

#[test]
fn long_titles_are_cut_on_a_character() {
    let long = "é".repeat(300);
    let documents = documents(&[Some(&long)]);
    assert_eq!(header(&documents, 0), format!("[1] {}\n", "é".repeat(200)));
}
