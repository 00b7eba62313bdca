//! MIME types and what they ask for.

use crate::Format;

/// MIME types of source code. They are all read alike.
const CODE: &[&str] = &[
    "application/javascript",
    "application/json",
    "application/sql",
    "application/toml",
    "application/typescript",
    "application/x-sh",
    "application/yaml",
    "text/css",
    "text/javascript",
    "text/typescript",
    "text/x-c",
    "text/x-c++",
    "text/x-clojure",
    "text/x-csharp",
    "text/x-dart",
    "text/x-diff",
    "text/x-elixir",
    "text/x-erlang",
    "text/x-go",
    "text/x-haskell",
    "text/x-java",
    "text/x-julia",
    "text/x-kotlin",
    "text/x-lisp",
    "text/x-lua",
    "text/x-ocaml",
    "text/x-perl",
    "text/x-php",
    "text/x-protobuf",
    "text/x-python",
    "text/x-r",
    "text/x-ruby",
    "text/x-rust",
    "text/x-scala",
    "text/x-sh",
    "text/x-shellscript",
    "text/x-source",
    "text/x-sql",
    "text/x-swift",
    "text/x-toml",
    "text/x-typescript",
    "text/x-yaml",
    "text/x-zig",
];

/// What a MIME type asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Text that is read as it stands.
    Verbatim(Format),
    /// HTML, read for its text.
    Html {
        /// XHTML.
        xml: bool,
    },
    /// PDF, read for its text.
    Pdf,
}

impl Media {
    /// What `mime` asks for: `text/plain` (also the empty type), `text/markdown`, `text/html`,
    /// `application/xhtml+xml`, `application/pdf`, or a type of source code, such as `text/x-source` or
    /// `text/x-python`. Parameters after a `;` and the case of letters do not matter. `None`: not read here.
    #[must_use]
    pub fn of(mime: &str) -> Option<Self> {
        let (essence, _) = mime.split_once(';').unwrap_or((mime, ""));
        let essence = essence.trim().to_ascii_lowercase();
        match essence.as_str() {
            "" | "text/plain" => Some(Self::Verbatim(Format::Text)),
            "text/markdown" | "text/x-markdown" => Some(Self::Verbatim(Format::Markdown)),
            "text/html" => Some(Self::Html { xml: false }),
            "application/xhtml+xml" => Some(Self::Html { xml: true }),
            "application/pdf" => Some(Self::Pdf),
            code if CODE.binary_search(&code).is_ok() => Some(Self::Verbatim(Format::Code)),
            _ => None,
        }
    }

    /// Whether its bytes are not text, so that it can only be sent as bytes.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self == Self::Pdf
    }
}

/// The `charset` parameter of a MIME type.
pub(super) fn charset(mime: &str) -> Option<&str> {
    mime.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_whatever_their_case_and_parameters() {
        assert!(CODE.is_sorted());
        assert_eq!(Media::of(""), Some(Media::Verbatim(Format::Text)));
        assert_eq!(Media::of("Text/HTML; charset=utf-8"), Some(Media::Html { xml: false }));
        assert_eq!(Media::of(" text/x-rust "), Some(Media::Verbatim(Format::Code)));
        assert_eq!(Media::of("text/x-frobnicate"), None);
        assert_eq!(Media::of("image/png"), None);
        assert_eq!(charset("text/html; x=y; Charset=\"latin1\""), Some("latin1"));
        assert_eq!(charset("text/html"), None);
    }
}
