//! Where a byte of a document lies for people: its line.

/// The line, from 1, that holds byte `offset` of `text`.
pub(super) fn line_of(text: impl AsRef<[u8]>, offset: usize) -> usize {
    let text = text.as_ref();
    let before = &text[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// `text` on one line, at most `chars` characters.
pub(super) fn one_line(text: &str, chars: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(chars) {
        Some((end, _)) => format!("{}...", &flat[..end]),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let text = "one\ntwo\n\nfour";
        let lines: Vec<usize> =
            [0, 3, 4, 8, 9, 13, 99].map(|offset| line_of(text, offset)).to_vec();
        assert_eq!(lines, [1, 1, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn long_quotes_are_cut_between_characters() {
        assert_eq!(one_line(" a\n b ", 9), "a b");
        assert_eq!(one_line("ééé", 2), "éé...");
    }
}
