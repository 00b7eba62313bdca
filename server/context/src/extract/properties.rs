//! What holds for every document of every format, whatever its bytes are.

use proptest::prelude::*;

use super::{Extracted, Origin, Way, extract};
use crate::Document;
use crate::segment::{MAX_SENTENCE_BYTES, segment_document, segment_part};

const MIMES: [&str; 6] = [
    "text/plain",
    "text/markdown",
    "text/x-source",
    "text/html",
    "application/xhtml+xml",
    "application/pdf",
];

/// Parts that documents of any format are made of.
fn bit() -> impl Strategy<Value = String> {
    let marks = vec![
        "\n",
        "\r\n",
        "\n\n",
        "\t",
        "  ",
        "# H\n",
        "- item\n",
        "```\n",
        "| a | b |\n",
        "<p>",
        "</p>",
        "<div>",
        "<li>",
        "<ul>",
        "</ul>",
        "<h2>",
        "</h2>",
        "<table>",
        "<tr>",
        "<td>",
        "</td>",
        "</tr>",
        "</table>",
        "<pre>",
        "</pre>",
        "<br>",
        "<b>",
        "</b>",
        "<script>",
        "</script>",
        "<title>",
        "</title>",
        "<template>",
        "</template>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<a href='x>y'>",
        "&amp;",
        "&lt",
        "&eacute;",
        "&#233;",
        "&#x1F600;",
        "&#0;",
        "&",
        "<",
        ">",
        "\0",
        "\u{a0}",
        "。",
        "fn f() {\n",
        "    def g(x):\n",
        "}\n",
        "// c\n",
        "1 0 obj",
        "stream\n",
        "endstream",
        "<<",
        ">>",
        "/Type",
        "(",
        ")",
        "BT",
        "Tj",
        "%PDF-1.4\n",
        "\u{feff}",
        "e\u{301}",
        "👩‍👩‍👧",
        "ไทย ",
    ];
    prop_oneof![
        6 => "(The|A|This) (old |grey )?(lighthouse|köhler|船) (fell|was built in 1990)[.!?] ?",
        6 => prop::sample::select(marks).prop_map(str::to_owned),
        1 => "\\PC{0,30}",
        1 => "[a-z ]{0,1200}",
    ]
}

/// Sentences are in order, do not overlap, and leave out nothing but white space.
fn check_cut(document: &Document) -> Result<(), TestCaseError> {
    let cut = segment_document(document);
    let mut at = 0;
    for sentence in &cut.sentences {
        let span = sentence.span.clone();
        prop_assert!(span.start >= at && span.start < span.end);
        let (left, text) = (document.text.get(at..span.start), document.text.get(span.clone()));
        prop_assert!(
            left.is_some_and(|left| left.trim().is_empty()),
            "{:?} in {:?}",
            left,
            document
        );
        prop_assert!(
            text.is_some_and(|text| text.trim() == text && text.len() <= MAX_SENTENCE_BYTES)
        );
        prop_assert!(sentence.section < cut.sections.len() && sentence.chunk < cut.chunks);
        at = span.end;
    }
    prop_assert!(document.text[at..].trim().is_empty());
    for (index, section) in cut.sections.iter().enumerate() {
        prop_assert!(document.text.get(section.heading.clone()).is_some());
        prop_assert!(section.parent.is_none_or(|parent| parent < index));
    }
    // A part is cut within its bounds, too.
    if let (Some(first), Some(last)) =
        (cut.sentences.first(), cut.sentences.get(cut.sentences.len() / 2))
    {
        let range = first.span.start..last.span.end;
        for sentence in segment_part(document, range.clone()).sentences {
            prop_assert!(document.text[range.clone()].get(sentence.span).is_some());
        }
    }
    Ok(())
}

/// Origins lie in the source, in order, and hold their text.
fn check_origins(extracted: &Extracted, source: &str) -> Result<(), TestCaseError> {
    let (mut at, mut from) = (0, 0);
    for word in extracted.text.split_inclusive(char::is_whitespace) {
        let range = at..at + word.trim_end().len();
        at += word.len();
        match extracted.origins.of(range.clone()) {
            Some(Origin::Text(original)) => {
                prop_assert!(original.start >= from, "{:?} before {}", original, from);
                from = original.start;
                let held = source.get(original.clone());
                prop_assert!(held.is_some(), "{:?}", original);
                let decoded = decoded(held.unwrap_or(""));
                let word = &extracted.text[range];
                prop_assert!(
                    decoded.contains(word.trim_start_matches("- ")),
                    "{:?} not in {:?}",
                    word,
                    decoded
                );
            }
            Some(Origin::Pages { first, last }) => prop_assert!(1 <= first && first <= last),
            // A mark that was added.
            None => prop_assert!(
                range.is_empty() || matches!(&extracted.text[range.clone()], "-" | "|"),
                "{:?}",
                &extracted.text[range]
            ),
        }
    }
    Ok(())
}

/// What is stored of an extraction comes back.
fn check_way(extracted: &Extracted) -> Result<(), TestCaseError> {
    let Extracted { text, elements, origins, .. } = extracted.clone();
    let way = Way { elements, origins };
    prop_assert_eq!(Way::decode(&way.encode(), &text), Some(way));
    Ok(())
}

/// The text of some source by other means: tags cut out and the references that [`bit`] writes replaced.
fn decoded(source: &str) -> String {
    let mut text = String::new();
    let mut rest = source;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        let tag = &rest[at..];
        let ends = if tag.starts_with("<!--") {
            tag.find("-->").map(|at| at + 3)
        } else {
            tag.find('>').map(|at| at + 1)
        };
        // A `<` that begins no tag is text.
        let is_tag =
            tag[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        let hidden = [("<script>", "</script>"), ("<title>", "</title>")];
        let hidden = hidden.into_iter().find(|(open, _)| tag.starts_with(open));
        let ends = hidden.map_or(ends, |(_, close)| tag.find(close).map(|at| at + close.len()));
        match ends.filter(|_| is_tag) {
            Some(end) => rest = &tag[end..],
            None if hidden.is_some() => rest = "",
            None => {
                text.push('<');
                rest = &tag[1..];
            }
        }
    }
    text.push_str(rest);
    for (reference, meaning) in [
        ("&eacute;", "é"),
        ("&#233;", "é"),
        ("&#x1F600;", "😀"),
        ("&#0;", ""),
        ("&lt;", "<"),
        ("&lt", "<"),
        ("&amp;", "&"),
        ("\0", ""),
    ] {
        text = text.replace(reference, meaning);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_document_is_cut_whole_and_leads_back(bits in prop::collection::vec(bit(), 0..24), mime in prop::sample::select(&MIMES[..5])) {
        let source = bits.concat();
        if let Ok(extracted) = extract(source.as_bytes(), mime, &mut || true) {
            let Extracted { text, format, elements, .. } = extracted.clone();
            let verbatim = extracted.origins.is_identity();
            prop_assert!(!verbatim || text == source);
            check_way(&extracted)?;
            check_cut(&Document { text, format, elements, ..Document::default() })?;
            // Comments and the like are more than the oracle knows.
            if mime == "text/html" && !["<!", "<a ", "<template>", "&amp;l"].iter().any(|bit| source.contains(bit)) {
                check_origins(&extracted, &source)?;
            }
        }
    }

    #[test]
    fn bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), mime in prop::sample::select(&MIMES[..]), pdf in any::<bool>()) {
        let bytes = if pdf { [b"%PDF-1.7\n1 0 obj <</Pages 1 0 R /Contents 2 0 R>> endobj 2 0 obj <<>> stream\n", bytes.as_slice()].concat() } else { bytes };
        if let Ok(extracted) = extract(&bytes, mime, &mut || true) {
            check_way(&extracted)?;
            let Extracted { text, format, elements, .. } = extracted;
            check_cut(&Document { text, format, elements, ..Document::default() })?;
        }
    }

    #[test]
    fn pages_of_any_drawing_are_read(bits in prop::collection::vec(bit(), 0..12)) {
        let operators = ["BT", "ET", "/F 9 Tf", "Td", "TJ", "Tj", "[", "]", "(", ")", "<41>", "1 0 0 1 5 5 Tm", "q", "Q", "cm", "9", "-3", "T*", "ID", "EI", "Do"];
        let content: String = bits.iter().enumerate().map(|(n, bit)| format!("{} ({bit}) Tj {} ", operators[n * 7 % operators.len()], operators[bit.len() % operators.len()])).collect();
        let file = format!("%PDF-1.4\n1 0 obj <</Pages 2 0 R>> endobj 2 0 obj <</Kids [3 0 R]>> endobj 3 0 obj <</Contents 4 0 R /Resources <</Font <</F 5 0 R>>>>>> endobj \
            5 0 obj <</Subtype /Type1 /Encoding /WinAnsiEncoding>> endobj 4 0 obj <</Length {}>> stream\n{content}\nendstream endobj trailer <</Root 1 0 R>>", content.len());
        if let Ok(extracted) = extract(file.as_bytes(), "application/pdf", &mut || true) {
            check_origins(&extracted, "")?;
            check_way(&extracted)?;
            let Extracted { text, format, elements, .. } = extracted;
            check_cut(&Document { text, format, elements, ..Document::default() })?;
        }
    }
}

/// Time in proportion to the bytes: fifty megabytes of one word, of one mark, of one tag.
#[test]
fn large_documents_of_one_thing_take_seconds() {
    const BYTES: usize = if cfg!(debug_assertions) { 1 << 20 } else { 50 << 20 };
    for pattern in [
        "x",
        "é",
        "word ",
        "<",
        "&",
        "&amp;",
        "<b ",
        "<!--",
        "{\n",
        ")\n",
        "def f(x):\n ",
        ". ",
        "ไทย ",
    ] {
        for mime in &MIMES[..4] {
            let clock = std::time::Instant::now();
            let text = pattern.repeat(BYTES / pattern.len());
            let seconds = if let Ok(Extracted { text, format, elements, .. }) =
                extract(text.as_bytes(), mime, &mut || true)
            {
                let document = Document { text, format, elements, ..Document::default() };
                segment_document(&document);
                clock.elapsed().as_secs_f64()
            } else {
                clock.elapsed().as_secs_f64()
            };
            assert!(seconds < 20.0, "{pattern:?} as {mime}: {seconds} s");
        }
    }
}
