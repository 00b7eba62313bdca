use std::time::Instant;

use super::super::{Origin, extract};
use super::*;
use crate::ElementKind;

/// A file of these objects, the first its catalogue.
pub(in crate::extract) fn file(objects: &[Vec<u8>], trailer: &str) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
    for (index, object) in objects.iter().enumerate() {
        file.extend(format!("{} 0 obj\n", index + 1).into_bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    file.extend(format!("trailer\n<< /Root 1 0 R {trailer} >>\n%%EOF\n").into_bytes());
    file
}

fn stream(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("<< {dictionary} /Length {} >>\nstream\n", data.len());
    [head.as_bytes(), data, b"\nendstream"].concat()
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), true);
    while deflate.total_in() < data.len() as u64 || out.len() == out.capacity() {
        out.reserve(1 << 16);
        let rest = &data[deflate.total_in() as usize..];
        deflate.compress_vec(rest, &mut out, flate2::FlushCompress::Finish).unwrap();
    }
    out
}

const FONT: &str =
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>";

/// A file of one page that draws `content` in the font `/F`.
fn page(content: &[u8], font: &str) -> Vec<u8> {
    let objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>"
            .to_vec(),
        stream("", content),
        font.as_bytes().to_vec(),
    ];
    file(&objects, "")
}

fn read(file: &[u8]) -> Result<Extracted, ExtractError> {
    extract(file, "application/pdf", &mut || true)
}

fn text(file: &[u8]) -> String {
    read(file).unwrap_or_else(|error| panic!("{error}")).text
}

#[test]
fn pages_become_headings_and_paragraphs() {
    let first = b"BT /F 20 Tf 72 720 Td (Pump P2) Tj /F 10 Tf 0 -40 Td 12 TL (It moves caf\\351 water, cool and clear, up to) Tj \
        T* (the roof. Its seal is) Tj 0 -30 Td (Another para-) Tj T* (graph \\(short\\).) Tj ET";
    let second = b"BT /F 10 Tf 1 0 0 1 72 700 Tm [(Wo) 15 (rd) -300 (by) -300 (wo) 10 (rd)] TJ ET";
    let objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R 6 0 R 4 0 R] /Count 3 /Resources << /Font << /F 5 0 R >> >> >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /Contents [7 0 R] >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /Contents 8 0 R >>".to_vec(),
        FONT.as_bytes().to_vec(),
        b"<< /Type /Page /Parent 2 0 R >>".to_vec(),
        stream("", first),
        stream("/Filter /FlateDecode", &deflated(second)),
        b"<< /Title (\\376\\377\\000P\\0002) >>".to_vec(),
    ];
    let pdf = read(&file(&objects, "/Info 9 0 R")).unwrap();
    assert_eq!(
        pdf.text,
        "Pump P2\n\nIt moves café water, cool and clear, up to\nthe roof. Its seal is\n\nAnother para-graph (short).\n\nWord by word"
    );
    assert_eq!(pdf.title.as_deref(), Some("P2"));
    let elements = pdf.elements.as_deref().unwrap();
    assert_eq!(elements[0].kind, ElementKind::Heading(1));
    assert!(elements[1..].iter().all(|element| element.kind == ElementKind::Paragraph));
    let pages = |words: &str| {
        let start = pdf.text.find(words).unwrap();
        match pdf.origins.of(start..start + words.len()) {
            Some(Origin::Pages { first, last }) => (first, last),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pages("Pump"), (1, 1));
    assert_eq!(pages("short"), (1, 1));
    // The second page is blank.
    assert_eq!(pages("Word by"), (3, 3));
    assert_eq!(pages("(short).\n\nWord"), (1, 3));
}

/// Object streams, fonts with two-byte codes, differences, ligatures.
#[test]
fn fonts_say_what_codes_mean() {
    let map = b"1 begincodespacerange <0000> <ffff> endcodespacerange 2 beginbfchar <0001> <0048> <0003> <00660069> endbfchar";
    let composite = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 7 0 R /DescendantFonts [8 0 R] >>";
    let differences = "<< /Type /Font /Subtype /Type1 /BaseFont /Y /Encoding << /Differences [65 /Omega /f_f_i 7 /g17] >> >>";
    let packed =
        [composite, differences, "<< /Type /Font /Subtype /CIDFontType2 /W [1 [600] 2 9 500] >>"];
    let offsets = [0, composite.len() + 1, composite.len() + differences.len() + 2];
    let header = format!("5 {} 6 {} 8 {} ", offsets[0], offsets[1], offsets[2]);
    let object_stream = format!("{header}{}", packed.join(" "));
    let content = b"BT /F 10 Tf <000100030002> Tj /G 10 Tf 0 -20 Td (ABC\\007) Tj ET";
    let objects = [
        b"<< /Pages 2 0 R >>".to_vec(),
        b"<< /Kids [3 0 R] >>".to_vec(),
        b"<< /Type /Page /Contents 4 0 R /Resources << /Font << /F 5 0 R /G 6 0 R >> >> >>"
            .to_vec(),
        stream("", content),
    ];
    let mut bytes = file(&objects, "");
    for (number, object) in [
        (7, stream("", map)),
        (
            9,
            stream(
                &format!("/Type /ObjStm /N 3 /First {} /Filter /FlateDecode", header.len()),
                &deflated(object_stream.as_bytes()),
            ),
        ),
    ] {
        bytes.extend(format!("{number} 0 obj\n").into_bytes());
        bytes.extend(object);
        bytes.extend(b"\nendobj\n");
    }
    let pdf = read(&bytes).unwrap();
    // Code 2 and glyph `g17` mean nothing that anybody knows.
    assert_eq!((pdf.text.as_str(), pdf.left_out), ("Hfi\nΩffiC", 2));
}

#[test]
fn drawings_inside_drawings_end() {
    let objects = [
        b"<< /Pages 2 0 R >>".to_vec(),
        b"<< /Kids [3 0 R 2 0 R 3 0 R] >>".to_vec(),
        b"<< /Contents 4 0 R /Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R >> >> >>"
            .to_vec(),
        stream("", b"q 2 0 0 2 0 0 cm /X Do Q BI /W 1 ID \x00(no) Tj EI BT /F 9 Tf (end) Tj ET"),
        FONT.as_bytes().to_vec(),
        stream("/Subtype /Form", b"BT /F 9 Tf 0 99 Td (in) Tj ET /X Do /X Do"),
    ];
    let text = text(&file(&objects, ""));
    assert!(text.starts_with("in\n") && text.len() < 20 && text.ends_with("end"), "{text}");
}

#[test]
fn an_update_takes_the_place_of_what_it_updates() {
    let mut bytes = page(b"BT /F 9 Tf (old) Tj ET", FONT);
    bytes.extend(b"4 0 obj\n");
    bytes.extend(stream("", b"BT /F 9 Tf (new) Tj ET"));
    bytes.extend(b"\nendobj\n");
    assert_eq!(text(&bytes), "new");
}

#[test]
fn bad_files_are_refused_with_a_reason() {
    let good = page(b"BT /F 9 Tf (text) Tj ET", FONT);
    let malformed =
        |bytes: &[u8]| matches!(read(bytes), Err(ExtractError::Malformed { format: "PDF", .. }));
    assert!(malformed(b"") && malformed(b"PDF") && malformed(b"%PDF-1.4\n"));
    assert!(malformed(&file(
        &[b"<< /Pages 2 0 R >>".to_vec(), b"<< /Kids [2 0 R] >>".to_vec()],
        ""
    )));
    assert!(malformed(&file(&[b"<< /Pages 9 0 R >>".to_vec()], "")));
    let encrypted =
        file(&[b"<< /Pages 2 0 R >>".to_vec()], "/Encrypt << /Filter /Standard /V 2 >>");
    assert_eq!(read(&encrypted).err(), Some(ExtractError::Encrypted));
    assert_eq!(read(&page(b"0 0 m 10 10 l S", FONT)).err(), Some(ExtractError::NoText));
    assert_eq!(
        extract(&good, "application/pdf", &mut || false).err(),
        Some(ExtractError::Cancelled)
    );
    // Cut anywhere, it is read or refused.
    for end in 0..good.len() {
        let _ = read(&good[..end]);
    }
    // With any byte changed, too.
    for at in 0..good.len() {
        for byte in [0, b'(', b'<', b'[', b'9', 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            let _ = read(&bad);
        }
    }
}

/// Time in proportion to the bytes, whatever they are.
#[test]
fn hostile_files_cost_no_more_than_their_length() {
    let start = "1 0 obj <</Pages 1 0 R/Kids[";
    for pattern in [
        "[",
        "<<",
        "(",
        "<",
        "1 0 obj",
        "1 0 obj [",
        "1 0 obj <<>> stream\n",
        "trailer",
        "trailer<<",
        "1 ",
        "/A ",
        "1 0 R ",
        "obj",
        ")",
        "%\n",
        "1 0 obj(\\",
    ] {
        let clock = Instant::now();
        let bytes = format!("%PDF-1.4\n{start}{}", pattern.repeat(4_000_000 / pattern.len()));
        assert!(read(bytes.as_bytes()).is_err(), "{pattern:?}");
        let content = [
            b"BT /F 9 Tf (text) Tj ".to_vec(),
            pattern.repeat(1_000_000 / pattern.len()).into_bytes(),
        ]
        .concat();
        let _ = read(&page(&content, FONT));
        assert!(clock.elapsed().as_secs() < 10, "{pattern:?} took {:?}", clock.elapsed());
    }
}
