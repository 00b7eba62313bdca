//! Bytes become characters, or an error that says where they are none.

use std::borrow::Cow;

use super::ExtractError;

/// How far into an HTML document its encoding is looked for, in bytes, as browsers do.
const META_BYTES: usize = 1024;
/// Names of windows-1252, which the web means by all of them.
const LATIN: &[&str] =
    &["windows-1252", "cp1252", "iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "us-ascii"];

/// What bytes 0x80 to 0x9F are in windows-1252; the rest are the code points of the same number.
const LATIN_HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A byte of windows-1252.
pub(super) fn latin(byte: u8) -> char {
    match byte {
        0x80..=0x9f => LATIN_HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

/// `bytes` as text: UTF-8, UTF-16 with a byte order mark, or what `charset` says.
pub(super) fn text<'a>(
    bytes: &'a [u8],
    charset: Option<&str>,
) -> Result<Cow<'a, str>, ExtractError> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes, "UTF-16LE"),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes, "UTF-16BE"),
        _ => {
            let error = match std::str::from_utf8(bytes) {
                Ok(text) => return Ok(Cow::Borrowed(text)),
                Err(error) => error,
            };
            let offset = error.valid_up_to();
            match charset.map(str::to_ascii_lowercase) {
                Some(name) if LATIN.contains(&name.as_str()) => {
                    Ok(Cow::Owned(bytes.iter().copied().map(latin).collect()))
                }
                Some(name) if name != "utf-8" && name != "utf8" => {
                    Err(ExtractError::UnknownEncoding { encoding: name, offset })
                }
                _ => Err(ExtractError::Encoding { encoding: "UTF-8".to_owned(), offset }),
            }
        }
    }
}

/// As [`text`], for HTML, which may name its encoding in a `<meta>`.
pub(super) fn html<'a>(
    bytes: &'a [u8],
    charset: Option<&str>,
) -> Result<Cow<'a, str>, ExtractError> {
    let named = charset.map(str::to_owned).or_else(|| meta(&bytes[..bytes.len().min(META_BYTES)]));
    text(bytes, named.as_deref())
}

/// The value after the first `charset=`, which stands in `<meta charset=...>` and in
/// `<meta http-equiv content="text/html; charset=...">` alike.
fn meta(head: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"charset=";
    let at = head.windows(KEY.len()).position(|window| window.eq_ignore_ascii_case(KEY))?;
    let value: String = head[at + KEY.len()..]
        .iter()
        .skip_while(|byte| matches!(byte, b'"' | b'\'' | b' '))
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':'))
        .map(|&byte| char::from(byte))
        .collect();
    (!value.is_empty()).then_some(value)
}

fn utf16(
    bytes: &[u8],
    unit: fn([u8; 2]) -> u16,
    name: &str,
) -> Result<Cow<'static, str>, ExtractError> {
    let wrong = |offset| ExtractError::Encoding { encoding: name.to_owned(), offset };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len() / 2);
    // The byte order mark comes first.
    let mut offset = 2;
    for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let c = decoded.map_err(|_| wrong(offset))?;
        offset += 2 * c.len_utf16();
        text.push(c);
    }
    if rest.is_empty() { Ok(Cow::Owned(text)) } else { Err(wrong(offset)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_by_mark_and_name() {
        assert_eq!(text("naïve".as_bytes(), Some("latin1")), Ok("naïve".into()));
        assert_eq!(text(b"na\xefve \x96", Some("ISO-8859-1")), Ok("naïve –".into()));
        assert_eq!(text(b"\xff\xfea\0\x3d\xd8\x00\xde", None), Ok("a😀".into()));
        assert_eq!(text(b"\xfe\xff\0a", None), Ok("a".into()));
        assert_eq!(
            html(b"<meta CHARSET = x><meta charset='windows-1252'>\x80", None),
            Ok("<meta CHARSET = x><meta charset='windows-1252'>€".into())
        );
    }

    #[test]
    fn errors_say_where() {
        let utf8 = |offset| Err(ExtractError::Encoding { encoding: "UTF-8".to_owned(), offset });
        assert_eq!(text(b"caf\xe9", None), utf8(3));
        assert_eq!(text(b"caf\xe9", Some("utf-8")), utf8(3));
        assert_eq!(
            html(b"<meta charset=shift_jis>\x83", None),
            Err(ExtractError::UnknownEncoding { encoding: "shift_jis".to_owned(), offset: 24 })
        );
        let utf16 =
            |offset| Err(ExtractError::Encoding { encoding: "UTF-16LE".to_owned(), offset });
        assert_eq!(text(b"\xff\xfea\0\x3d\xd8b\0", None), utf16(4));
        assert_eq!(text(b"\xff\xfea\0b", None), utf16(4));
    }
}
