//! What the names of elements say about where text begins and ends.

/// What an element does to the text around its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Nothing: its text runs on in its parent's.
    Inline,
    /// Its text stands apart, a blank line before and after.
    Block,
    /// Its text has a line of its own.
    Line,
    /// A list, which stands apart unless it is inside another.
    List,
    /// An item of a list.
    Item,
    /// A heading of that level.
    Heading(u8),
    /// Text whose white space counts.
    Preformatted,
    /// A table.
    Table,
    /// A row of one.
    Row,
    /// A cell of one.
    Cell,
    /// A line ends.
    Break,
    /// The document's title.
    Title,
    /// Not read; such elements hold no others of their kind.
    Hidden,
    /// Not read, and may be nested.
    Template,
}

/// What `name`, in lower case, stands for.
pub(super) fn tag(name: &[u8]) -> Tag {
    match name {
        b"h1" => Tag::Heading(1),
        b"h2" => Tag::Heading(2),
        b"h3" => Tag::Heading(3),
        b"h4" => Tag::Heading(4),
        b"h5" => Tag::Heading(5),
        b"h6" => Tag::Heading(6),
        b"address" | b"article" | b"aside" | b"blockquote" | b"body" | b"center" | b"details"
        | b"dialog" | b"div" | b"fieldset" | b"figcaption" | b"figure" | b"footer" | b"form"
        | b"header" | b"hgroup" | b"hr" | b"html" | b"legend" | b"main" | b"nav" | b"optgroup"
        | b"p" | b"search" | b"section" | b"select" | b"summary" | b"textarea" => Tag::Block,
        b"caption" | b"dd" | b"dt" | b"option" => Tag::Line,
        b"dir" | b"dl" | b"menu" | b"ol" | b"ul" => Tag::List,
        b"li" => Tag::Item,
        b"listing" | b"plaintext" | b"pre" | b"xmp" => Tag::Preformatted,
        b"table" | b"tbody" | b"tfoot" | b"thead" => Tag::Table,
        b"tr" => Tag::Row,
        b"td" | b"th" => Tag::Cell,
        b"br" => Tag::Break,
        b"title" => Tag::Title,
        b"iframe" | b"noembed" | b"noframes" | b"noscript" | b"script" | b"style" => Tag::Hidden,
        b"template" => Tag::Template,
        _ => Tag::Inline,
    }
}
