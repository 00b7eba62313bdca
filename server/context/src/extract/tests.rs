use super::*;
use crate::{Document, ElementKind};

fn html(source: &str) -> Extracted {
    extract(source.as_bytes(), "text/html", &mut || true)
        .unwrap_or_else(|e| panic!("{source}: {e}"))
}

/// What it is made of, a line each: `1` to `6` a heading, `p` a paragraph, `l` lines.
fn parts(extracted: &Extracted) -> Vec<String> {
    let elements = extracted.elements.as_deref().unwrap_or_default();
    let part = |element: &Element| {
        let kind = match element.kind {
            ElementKind::Heading(level) => level.to_string(),
            ElementKind::Paragraph => "p".to_owned(),
            ElementKind::Lines => "l".to_owned(),
        };
        format!("{kind} {}", &extracted.text[element.span.clone()])
    };
    elements.iter().map(part).collect()
}

fn sentences(extracted: &Extracted) -> Vec<String> {
    let document = Document {
        text: extracted.text.clone(),
        elements: extracted.elements.clone(),
        ..Document::default()
    };
    let cut = crate::segment::segment_document(&document).sentences;
    cut.into_iter().map(|sentence| extracted.text[sentence.span].to_owned()).collect()
}

/// The source that words of the text come from.
fn source_of<'a>(source: &'a str, extracted: &Extracted, words: &str) -> &'a str {
    let start =
        extracted.text.find(words).unwrap_or_else(|| panic!("{words:?} in {:?}", extracted.text));
    match extracted.origins.of(start..start + words.len()) {
        Some(Origin::Text(range)) => &source[range],
        other => panic!("{words:?}: {other:?}"),
    }
}

const PAGE: &str = "<!DOCTYPE html>\n<html><head><meta charset=utf-8><title> The\n pump &amp; you </title>\n<style>p { color: red }</style>\
    <script>if (a < b) document.write('<p>no</p>')</script></head>\n<body>\n<h1>Pump <em>P2</em></h1>\n\
    <p>It moves   caf&eacute;&nbsp;water.\n   Its seal is <b>Viton</b>&reg;. Don&#8217;t dry-run&nosuch; it.\n\
    <ul><li>First <i>item</i><li>Second: AT&T<ul><li>Inner</ul></ul>\n\
    <noscript>Turn scripts on</noscript><template><p>unseen</p></template><!-- nor this -->\
    <h2>Parts</h2><table><tr><th>Part<th>Price<tr><td><p>Seal</p><td>3&#x20AC;</table>after\
    <pre>\n  a &lt; b\n\n    c</pre>One<br>Two<br><br>Three";

#[test]
fn a_page_keeps_its_text_and_structure() {
    let page = html(PAGE);
    assert_eq!(page.title.as_deref(), Some("The pump & you"));
    assert_eq!(
        parts(&page),
        [
            "1 Pump P2",
            "p It moves café\u{a0}water. Its seal is Viton®. Don’t dry-run&nosuch; it.",
            "p - First item",
            "p - Second: AT&T",
            "p - Inner",
            "2 Parts",
            "l Part | Price\nSeal | 3€",
            "p after",
            "l   a < b\n\n    c",
            "p One",
            "p Two",
            "p Three",
        ]
    );
    assert!(page.text.ends_with("One\nTwo\n\nThree"), "{}", page.text);
    assert_eq!(
        sentences(&page)[1..4],
        ["It moves café\u{a0}water.", "Its seal is Viton®.", "Don’t dry-run&nosuch; it."]
    );
}

#[test]
fn text_leads_back_to_its_source() {
    let page = html(PAGE);
    for (words, source) in [
        ("Pump P2", "Pump <em>P2"),
        ("It moves café", "It moves   caf&eacute;"),
        ("seal is Viton®", "seal is <b>Viton</b>&reg;"),
        ("Don’t", "Don&#8217;t"),
        ("&nosuch;", "&nosuch;"),
        ("AT&T", "AT&T"),
        ("- Inner", "Inner"),
        ("Seal | 3€", "Seal</p><td>3&#x20AC;"),
        ("a < b\n\n    c", "a &lt; b\n\n    c"),
        ("Three", "Three"),
    ] {
        assert_eq!(source_of(PAGE, &page, words), source);
    }
}

/// What looks like Markdown in the text of a page is text.
#[test]
fn text_does_not_turn_into_markup() {
    let page = html("<p># not a heading</p><p>```</p><p>| no | table |</p><p>Under<br>===</p>");
    assert_eq!(
        parts(&page),
        ["p # not a heading", "p ```", "p | no | table |", "p Under", "p ==="]
    );
    let document = Document { text: page.text, elements: page.elements, ..Document::default() };
    assert_eq!(crate::segment::segment_document(&document).sections.len(), 1);
}

#[test]
fn line_ends_and_nothing_characters_are_minded() {
    let source = "\u{feff}<p>one\r\ntwo\rthree&#0;\0&#xD800; &#x1F600;</p>\r\n<pre>a\r\nb</pre>";
    let page = html(source);
    assert_eq!(page.text, "one two three 😀\n\na\nb");
    assert_eq!(source_of(source, &page, "one two three"), "one\r\ntwo\rthree");
    assert_eq!(source_of(source, &page, "😀"), "&#x1F600;");
    assert_eq!(source_of(source, &page, "a\nb"), "a\r\nb");
}

#[test]
fn xhtml_has_sections_of_characters_and_empty_elements() {
    let source = "<html><head><script src='x'/><title/></head><p>a <![CDATA[<b> & c]]></p></html>";
    let page = extract(source.as_bytes(), "application/xhtml+xml", &mut || true)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(page.text, "a <b> & c");
}

#[test]
fn other_encodings_are_decoded_and_the_original_kept() {
    let page = extract(b"<meta charset=iso-8859-1><p>na\xefve caf\xe9", "text/html", &mut || true);
    let page = page.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(page.text, "naïve café");
    let decoded = page.decoded.clone().unwrap_or_default();
    assert_eq!(source_of(&decoded, &page, "café"), "café");
}

#[test]
fn refusals_have_reasons() {
    let error = |bytes: &[u8], mime| extract(bytes, mime, &mut || true).err();
    assert_eq!(
        error(b"x", "image/png"),
        Some(ExtractError::Media { mime: "image/png".to_owned() })
    );
    assert_eq!(error(b"<p><script>x</script> \n", "text/html"), Some(ExtractError::NoText));
    assert_eq!(error(b" \n", "text/plain"), Some(ExtractError::NoText));
    assert_eq!(
        error(b"<p>a\xff", "text/html"),
        Some(ExtractError::Encoding { encoding: "UTF-8".to_owned(), offset: 4 })
    );
    let page = "<p>x".repeat(10_000);
    assert_eq!(
        extract(page.as_bytes(), "text/html", &mut || false).err(),
        Some(ExtractError::Cancelled)
    );
    let many = "<b>".repeat(html::MAX_TAGS + 1);
    assert_eq!(
        error(many.as_bytes(), "text/html"),
        Some(ExtractError::TooLarge { what: "tags", limit: html::MAX_TAGS })
    );
}

/// Open elements cost nothing: no recursion, no tree.
#[test]
fn deep_pages_take_no_longer_than_long_ones() {
    for open in ["<div>", "<ul><li>", "<table><tr><td>", "<template>", "<b>", "<pre>", "<h1>"] {
        let start = std::time::Instant::now();
        let source = format!("<p>before</p>{}<p>deep", open.repeat(100_000));
        let page = html(&source);
        assert!(page.text.starts_with("before"));
        assert_eq!(page.text.contains("deep"), open != "<template>", "{open}");
        assert!(start.elapsed().as_secs() < 5, "{open}: {:?}", start.elapsed());
    }
}
