//! What the bytes of a string mean in a font, and how wide they are.

use super::super::ExtractError;
use super::cmap::CMap;
use super::file::File;
use super::glyphs::{Base, named};
use super::object::{Dictionary, Object};

/// Most widths read of one font.
const MAX_WIDTHS: usize = 1 << 17;
/// What a glyph is taken to be wide, in thousandths of the font's size, if the font does not say.
const USUAL_WIDTH: f64 = 500.0;

/// A font as far as its text goes.
#[derive(Debug)]
pub(super) struct Font {
    to_unicode: CMap,
    codes: Codes,
    /// First and last code and their width, in order.
    widths: Vec<(u32, u32, f64)>,
    default_width: f64,
    /// Whether the widths are the font's own.
    pub(super) measured: bool,
}

#[derive(Debug)]
enum Codes {
    /// One byte each, and what they mean.
    Simple(Vec<Option<String>>),
    /// Two bytes each as a rule; what they mean only `to_unicode` can say.
    Composite,
    /// Characters of UTF-16.
    Utf16,
}

/// A glyph that is shown.
#[derive(Debug)]
pub(super) struct Glyph {
    /// What it means; `None`: the font does not say.
    pub(super) text: Option<String>,
    /// In thousandths of the font's size.
    pub(super) width: f64,
    /// The single byte 32, which word spacing widens.
    pub(super) is_space: bool,
}

impl Font {
    pub(super) fn load(file: &mut File<'_>, font: &Dictionary) -> Result<Self, ExtractError> {
        let to_unicode = match file.get(font, b"ToUnicode")? {
            Object::Stream(dictionary, range) => {
                file.unpack(&dictionary, range)?.map(|bytes| CMap::parse(&bytes))
            }
            _ => None,
        };
        let subtype = file.get(font, b"Subtype")?;
        let composite = subtype.name() == Some(b"Type0");
        let mut loaded = Self {
            to_unicode: to_unicode.unwrap_or_default(),
            codes: Codes::Composite,
            widths: Vec::new(),
            default_width: USUAL_WIDTH,
            measured: false,
        };
        if composite {
            if let Some(name) = file.get(font, b"Encoding")?.name()
                && (name.windows(5).any(|part| part == b"UTF16")
                    || name.windows(4).any(|part| part == b"UCS2"))
            {
                loaded.codes = Codes::Utf16;
            }
            loaded.load_composite_widths(file, font)?;
        } else {
            loaded.codes = Codes::Simple(simple_codes(file, font)?);
            loaded.load_simple_widths(file, font)?;
        }
        file.keep_font_entries(loaded.to_unicode.len() + loaded.widths.len())?;
        Ok(loaded)
    }

    fn load_simple_widths(
        &mut self,
        file: &mut File<'_>,
        font: &Dictionary,
    ) -> Result<(), ExtractError> {
        let first = file.get(font, b"FirstChar")?.number().unwrap_or(0.0) as u32;
        let widths = file.get(font, b"Widths")?;
        for (index, width) in (0..).zip(widths.array().iter().take(256)) {
            let code = first.saturating_add(index);
            self.widths.extend(file.resolve(width)?.number().map(|width| (code, code, width)));
        }
        self.measured = !self.widths.is_empty();
        let descriptor = file.get(font, b"FontDescriptor")?;
        if let Some(descriptor) = descriptor.dictionary() {
            let missing = file.get(descriptor, b"MissingWidth")?.number();
            self.default_width = missing.filter(|width| *width > 0.0).unwrap_or(USUAL_WIDTH);
        }
        Ok(())
    }

    /// `/W`: `first [width ...]` or `first last width`, over and over.
    fn load_composite_widths(
        &mut self,
        file: &mut File<'_>,
        font: &Dictionary,
    ) -> Result<(), ExtractError> {
        let descendants = file.get(font, b"DescendantFonts")?;
        let Some(descendant) = descendants.array().first() else { return Ok(()) };
        let descendant = file.resolve(descendant)?;
        let Some(descendant) = descendant.dictionary() else { return Ok(()) };
        self.default_width = file.get(descendant, b"DW")?.number().unwrap_or(1000.0);
        self.measured = true;
        let list = file.get(descendant, b"W")?;
        let mut rest = list.array();
        while let [first, second, after @ ..] = rest {
            let first = file.resolve(first)?.number().unwrap_or(0.0) as u32;
            rest = match (file.resolve(second)?, after) {
                (Object::Array(widths), _) => {
                    let each = (0..).zip(&widths).map(|(index, width)| {
                        let code = first.saturating_add(index);
                        (code, code, width.number().unwrap_or(0.0))
                    });
                    self.widths.extend(each);
                    after
                }
                (last, [width, after @ ..]) => {
                    let last = last.number().unwrap_or(0.0) as u32;
                    let width = file.resolve(width)?.number().unwrap_or(0.0);
                    self.widths.push((first, last, width));
                    after
                }
                _ => break,
            };
            if self.widths.len() > MAX_WIDTHS {
                break;
            }
        }
        self.widths.sort_by_key(|(first, ..)| *first);
        Ok(())
    }

    fn width(&self, code: u32) -> f64 {
        let after = self.widths.partition_point(|(first, ..)| *first <= code);
        match self.widths[..after].last() {
            Some((_, last, width)) if code <= *last => *width,
            _ => self.default_width,
        }
    }

    /// The glyphs of a string.
    pub(super) fn glyphs<'s>(&'s self, string: &'s [u8]) -> impl Iterator<Item = Glyph> + 's {
        let mut rest = string;
        std::iter::from_fn(move || {
            let length = match self.codes {
                _ if rest.is_empty() => return None,
                Codes::Simple(_) => 1,
                Codes::Composite => self.to_unicode.code_length(rest, 2),
                Codes::Utf16 => match rest {
                    // A high surrogate has its low one with it.
                    [0xd8..=0xdb, _, _, _, ..] => 4,
                    _ => 2,
                },
            };
            let (code, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            Some(self.glyph(code))
        })
    }

    fn glyph(&self, code: &[u8]) -> Glyph {
        let number = code.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let mapped = self.to_unicode.text(code);
        let text = mapped.or_else(|| match &self.codes {
            Codes::Simple(meanings) => meanings.get(number as usize)?.clone(),
            Codes::Composite => None,
            Codes::Utf16 => {
                let units = code.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
                String::from_utf16(&units.collect::<Vec<_>>()).ok()
            }
        });
        Glyph { text, width: self.width(number), is_space: code == b" " }
    }
}

/// What each byte means: by the font's encoding and the differences from it. Of a symbolic font that brings its own
/// encoding and does not spell it out, nothing is known.
fn simple_codes(
    file: &mut File<'_>,
    font: &Dictionary,
) -> Result<Vec<Option<String>>, ExtractError> {
    let encoding = file.get(font, b"Encoding")?;
    let base = match encoding.dictionary() {
        Some(dictionary) => file.get(dictionary, b"BaseEncoding")?,
        None => encoding.clone(),
    };
    let base = match base.name().and_then(Base::named) {
        Some(base) => Some(base),
        None if is_symbolic(file, font)? => None,
        None => Some(Base::Standard),
    };
    let meaning = |code| base.and_then(|base| base.char(code)).map(String::from);
    let mut codes: Vec<Option<String>> = (0..=255).map(meaning).collect();
    if let Some(dictionary) = encoding.dictionary() {
        let mut code = 0_usize;
        for difference in file.get(dictionary, b"Differences")?.array() {
            match difference {
                Object::Number(number) => code = *number as usize,
                Object::Name(name) => {
                    if let Some(place) = codes.get_mut(code) {
                        *place = std::str::from_utf8(name).ok().and_then(named);
                    }
                    code = code.saturating_add(1);
                }
                _ => {}
            }
        }
    }
    Ok(codes)
}

fn is_symbolic(file: &mut File<'_>, font: &Dictionary) -> Result<bool, ExtractError> {
    const SYMBOLIC: u32 = 4;
    let name = file.get(font, b"BaseFont")?;
    if matches!(name.name(), Some(b"Symbol" | b"ZapfDingbats")) {
        return Ok(true);
    }
    let descriptor = file.get(font, b"FontDescriptor")?;
    let Some(descriptor) = descriptor.dictionary() else { return Ok(false) };
    let flags = file.get(descriptor, b"Flags")?.number().unwrap_or(0.0) as u32;
    Ok(flags & SYMBOLIC != 0)
}
