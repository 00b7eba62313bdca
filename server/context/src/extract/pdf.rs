//! PDF becomes text, page by page, in the order in which the pages draw it.
//!
//! What a page shows is read off its drawing operators, with what the fonts say their codes mean. A glyph whose font
//! does not say is left out and counted, never guessed. Lines, paragraphs and headings are told by where and how
//! large they are drawn. Text in images is not read, nor are annotations and forms to fill in. An encrypted file is
//! refused, though it may open without a password.
//!
//! Memory and time are bounded by what the file may unpack to, whatever it says: see [`file`].

mod cmap;
mod file;
mod filter;
mod font;
mod glyphs;
mod lines;
mod object;
mod page;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::rc::Rc;

use super::encoding::latin;
use super::origin::Origins;
use super::{ExtractError, Extracted, MAX_TITLE_BYTES};
use crate::Format;
use file::File;
use lines::Line;
use object::{Dictionary, Object};
use page::Painter;

/// Most pages that are read.
pub(super) const MAX_PAGES: usize = 20_000;
/// Most lines of all pages.
const MAX_LINES: usize = 1 << 20;

/// Makes text of the file `bytes`.
pub(super) fn extract(
    bytes: &[u8],
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Extracted, ExtractError> {
    if !bytes[..bytes.len().min(1024)].windows(5).any(|window| window == b"%PDF-") {
        return Err(malformed("it does not begin with %PDF-"));
    }
    let mut file = File::open(bytes, keep_going)?;
    let catalogue = file.trailer(b"Root")?;
    let Some(catalogue) = catalogue.dictionary() else {
        return Err(malformed("no catalogue was found"));
    };
    let mut painter = Painter::default();
    let pages = pages(&mut file, catalogue, &mut painter)?;
    let lines::Joined { text, elements, page_starts } = lines::join(&pages);
    Ok(Extracted {
        text,
        format: Format::Text,
        elements: Some(elements.into()),
        title: title(&mut file)?,
        origins: Origins::pages(page_starts),
        decoded: None,
        left_out: painter.left_out,
    })
}

fn malformed(reason: &str) -> ExtractError {
    ExtractError::Malformed { format: "PDF", reason: reason.to_owned() }
}

/// The lines of each page, in order.
fn pages(
    file: &mut File<'_>,
    catalogue: &Dictionary,
    painter: &mut Painter,
) -> Result<Vec<Vec<Line>>, ExtractError> {
    let mut pages: Vec<Vec<Line>> = Vec::new();
    let mut lines_left = MAX_LINES;
    let mut seen = HashSet::new();
    // What is still to be visited, the next last, with the resources it inherits.
    let root = catalogue.get(b"Pages".as_slice()).cloned().unwrap_or(Object::Null);
    let mut stack: Vec<(Object, Rc<Object>)> = vec![(root, Rc::new(Object::Null))];
    while let Some((node, inherited)) = stack.pop() {
        if let Object::Reference(number) = node
            && !seen.insert(number)
        {
            continue;
        }
        let Object::Dictionary(node) = file.resolve(&node)? else { continue };
        let resources = match file.get(&node, b"Resources")? {
            Object::Null => inherited,
            resources => Rc::new(resources),
        };
        if let Object::Array(kids) = file.get(&node, b"Kids")? {
            stack.extend(kids.into_iter().rev().map(|kid| (kid, Rc::clone(&resources))));
            continue;
        }
        if pages.len() == MAX_PAGES {
            return Err(ExtractError::TooLarge { what: "pages", limit: MAX_PAGES });
        }
        let lines = painter.paint(file, &node, &resources)?;
        lines_left = lines_left
            .checked_sub(lines.len())
            .ok_or(ExtractError::TooLarge { what: "lines", limit: MAX_LINES })?;
        pages.push(lines);
    }
    if pages.is_empty() { Err(malformed("it has no pages")) } else { Ok(pages) }
}

/// The title in the file's own notes.
fn title(file: &mut File<'_>) -> Result<Option<String>, ExtractError> {
    let info = file.trailer(b"Info")?;
    let Some(info) = info.dictionary() else { return Ok(None) };
    let Object::String(bytes) = file.get(info, b"Title")? else { return Ok(None) };
    let text: String = match bytes.as_slice() {
        [0xfe, 0xff, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).filter_map(Result::ok).collect()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).unwrap_or_default(),
        bytes => bytes.iter().copied().map(latin).collect(),
    };
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    line.truncate(line.floor_char_boundary(MAX_TITLE_BYTES));
    Ok((!line.is_empty()).then_some(line))
}
