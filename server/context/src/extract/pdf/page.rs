//! The drawing operators of a page, as far as text goes.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::super::{ExtractError, MAX_TEXT_BYTES};
use super::file::{File, MAX_STREAM};
use super::font::Font;
use super::lines::{self, Line, Lines};
use super::object::{Dictionary, Object, Reader, is_space};

/// Deepest drawing inside a drawing; the painter recurses as deep.
const MAX_DEPTH: usize = 8;
/// Most drawings inside others, over the whole file.
const MAX_DRAWINGS: usize = 100_000;
/// Most graphics states saved one on the other.
const MAX_SAVED: usize = 512;
/// Operands kept before an operator: none has more.
const MAX_OPERANDS: usize = 64;
/// Most fonts of a file.
const MAX_FONTS: usize = 10_000;
/// Operators between two looks at the clock.
const OPERATORS_BETWEEN_CHECKS: usize = 1024;

/// An affine map: `x' = a x + c y + e`, `y' = b x + d y + f`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix([f64; 6]);

impl Matrix {
    pub(super) const IDENTITY: Self = Self([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);

    fn of(operands: &[Object]) -> Option<Self> {
        let mut numbers = [0.0; 6];
        if operands.len() != numbers.len() {
            return None;
        }
        for (number, operand) in numbers.iter_mut().zip(operands) {
            *number = operand.number()?;
        }
        Some(Self(numbers))
    }

    /// First `self`, then `after`.
    fn then(self, after: Self) -> Self {
        let Self([a, b, c, d, e, f]) = self;
        let Self([ta, tb, tc, td, te, tf]) = after;
        Self([
            a * ta + b * tc,
            a * tb + b * td,
            c * ta + d * tc,
            c * tb + d * td,
            e * ta + f * tc + te,
            e * tb + f * td + tf,
        ])
    }

    fn moved(self, x: f64, y: f64) -> Self {
        Self([1.0, 0.0, 0.0, 1.0, x, y]).then(self)
    }

    /// Where its origin lies along and across the direction of its first axis, and how large a unit is across it.
    pub(super) fn place(self) -> (f64, f64, f64) {
        let Self([a, b, c, d, e, f]) = self;
        let length = a.hypot(b).max(f64::MIN_POSITIVE);
        let (x, y) = (a / length, b / length);
        (e * x + f * y, f * x - e * y, (d * x - c * y).abs())
    }
}

/// What `q` saves.
#[derive(Debug, Clone)]
struct State {
    matrix: Matrix,
    font: Option<Rc<Font>>,
    size: f64,
    character_space: f64,
    word_space: f64,
    /// Horizontal scale, 1 as a rule.
    scale: f64,
    leading: f64,
    rise: f64,
}

/// Reads pages; fonts are kept from one to the next.
pub(super) struct Painter {
    /// By the number of the object that describes them.
    fonts: HashMap<u32, Rc<Font>>,
    drawings: usize,
    /// Bytes of text there is still room for.
    room: usize,
    /// Glyphs whose font does not say what they mean.
    pub(super) left_out: usize,
}

impl Default for Painter {
    fn default() -> Self {
        Self { fonts: HashMap::new(), drawings: 0, room: MAX_TEXT_BYTES, left_out: 0 }
    }
}

impl Painter {
    /// The lines of a page, in the order in which they are drawn.
    pub(super) fn paint(
        &mut self,
        file: &mut File<'_>,
        page: &Dictionary,
        resources: &Object,
    ) -> Result<Vec<Line>, ExtractError> {
        let mut content = Vec::new();
        let parts = match file.get(page, b"Contents")? {
            Object::Array(parts) => parts,
            object => vec![object],
        };
        for part in parts {
            if let Object::Stream(dictionary, range) = file.resolve(&part)?
                && let Some(unpacked) = file.unpack(&dictionary, range)?
            {
                if content.len() + unpacked.len() > MAX_STREAM {
                    return Err(super::file::too_large());
                }
                content.extend(unpacked);
                content.push(b'\n');
            }
        }
        let none = Dictionary::new();
        let resources = resources.dictionary().unwrap_or(&none);
        let mut lines = Lines::new(self.room);
        self.draw(file, &content, resources, Matrix::IDENTITY, &mut lines, MAX_DEPTH)?;
        self.room = lines.room();
        Ok(lines.finish())
    }

    fn draw(
        &mut self,
        file: &mut File<'_>,
        content: &[u8],
        resources: &Dictionary,
        matrix: Matrix,
        lines: &mut Lines,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let mut drawing = Drawing {
            state: State {
                matrix,
                font: None,
                size: 1.0,
                character_space: 0.0,
                word_space: 0.0,
                scale: 1.0,
                leading: 0.0,
                rise: 0.0,
            },
            saved: Vec::new(),
            text: Matrix::IDENTITY,
            line: Matrix::IDENTITY,
            fonts: HashMap::new(),
        };
        let mut reader = Reader::new(content, 0, false);
        let mut operands: Vec<Object> = Vec::new();
        let (mut operators, mut read) = (0_usize, 0);
        while reader.at < content.len() {
            let word = match reader.next() {
                Some(Object::Word(word)) => word,
                Some(operand) => {
                    if operands.len() < MAX_OPERANDS {
                        operands.push(operand);
                    }
                    continue;
                }
                // Malformed: what comes after may not be.
                None => {
                    reader.at += 1;
                    continue;
                }
            };
            operators += 1;
            if operators.is_multiple_of(OPERATORS_BETWEEN_CHECKS) {
                file.tick(reader.at.saturating_sub(read))?;
                read = reader.at;
            }
            match word.as_slice() {
                b"Do" => {
                    let name = operands.last().and_then(Object::name).unwrap_or_default();
                    self.draw_form(file, name, resources, drawing.state.matrix, lines, depth)?;
                }
                b"Tf" => {
                    if let [.., Object::Name(name), Object::Number(size)] = operands.as_slice() {
                        drawing.state.font =
                            self.font(file, resources, name, &mut drawing.fonts)?;
                        drawing.state.size = *size;
                    }
                }
                b"ID" => skip_image(content, &mut reader.at),
                b"Tj" | b"'" | b"\"" | b"TJ" => {
                    self.left_out += drawing.show(&word, &operands, lines)?;
                }
                word => drawing.set(word, &operands),
            }
            operands.clear();
        }
        file.tick(reader.at.saturating_sub(read))
    }

    /// A drawing that has a name.
    fn draw_form(
        &mut self,
        file: &mut File<'_>,
        name: &[u8],
        resources: &Dictionary,
        matrix: Matrix,
        lines: &mut Lines,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let named = file.get(resources, b"XObject")?;
        let Some(form) = named.dictionary().and_then(|named| named.get(name)) else {
            return Ok(());
        };
        let Object::Stream(form, range) = file.resolve(form)? else { return Ok(()) };
        if depth == 0 || form.get(b"Subtype".as_slice()).and_then(Object::name) != Some(b"Form") {
            return Ok(());
        }
        self.drawings += 1;
        if self.drawings > MAX_DRAWINGS {
            return Err(ExtractError::TooLarge { what: "drawings", limit: MAX_DRAWINGS });
        }
        let Some(content) = file.unpack(&form, range)? else { return Ok(()) };
        let own = match file.get(&form, b"Matrix")? {
            Object::Array(numbers) => Matrix::of(&numbers).unwrap_or(Matrix::IDENTITY),
            _ => Matrix::IDENTITY,
        };
        let inner = file.get(&form, b"Resources")?;
        let inner = inner.dictionary().unwrap_or(resources);
        self.draw(file, &content, inner, own.then(matrix), lines, depth - 1)
    }

    /// The font that `resources` call `name`.
    fn font(
        &mut self,
        file: &mut File<'_>,
        resources: &Dictionary,
        name: &[u8],
        known: &mut HashMap<Vec<u8>, Option<Rc<Font>>>,
    ) -> Result<Option<Rc<Font>>, ExtractError> {
        if let Some(font) = known.get(name) {
            return Ok(font.clone());
        }
        let fonts = file.get(resources, b"Font")?;
        let described = fonts.dictionary().and_then(|fonts| fonts.get(name)).cloned();
        let number = match described {
            Some(Object::Reference(number)) => Some(number),
            _ => None,
        };
        let mut font = number.and_then(|number| self.fonts.get(&number).cloned());
        if font.is_none()
            && let Some(described) = &described
            && let Some(described) = file.resolve(described)?.dictionary()
        {
            if self.fonts.len() >= MAX_FONTS {
                return Err(ExtractError::TooLarge { what: "fonts", limit: MAX_FONTS });
            }
            let loaded = Rc::new(Font::load(file, described)?);
            if let Some(number) = number {
                self.fonts.insert(number, Rc::clone(&loaded));
            }
            font = Some(loaded);
        }
        known.insert(name.to_vec(), font.clone());
        Ok(font)
    }
}

/// A page or a form while it is drawn.
struct Drawing {
    state: State,
    saved: Vec<State>,
    text: Matrix,
    /// Where the line of text began.
    line: Matrix,
    fonts: HashMap<Vec<u8>, Option<Rc<Font>>>,
}

impl Drawing {
    /// Operators that show nothing.
    fn set(&mut self, operator: &[u8], operands: &[Object]) {
        let number = |index: usize| operands.get(index).and_then(Object::number).unwrap_or(0.0);
        match operator {
            b"q" if self.saved.len() < MAX_SAVED => self.saved.push(self.state.clone()),
            b"Q" => {
                if let Some(saved) = self.saved.pop() {
                    self.state = saved;
                }
            }
            b"cm" => {
                if let Some(matrix) = Matrix::of(operands) {
                    self.state.matrix = matrix.then(self.state.matrix);
                }
            }
            b"BT" => {
                self.text = Matrix::IDENTITY;
                self.line = Matrix::IDENTITY;
            }
            b"Tc" => self.state.character_space = number(0),
            b"Tw" => self.state.word_space = number(0),
            b"Tz" => self.state.scale = number(0) / 100.0,
            b"TL" => self.state.leading = number(0),
            b"Ts" => self.state.rise = number(0),
            b"Td" => self.next_line(number(0), number(1)),
            b"TD" => {
                self.state.leading = -number(1);
                self.next_line(number(0), number(1));
            }
            b"T*" => self.next_line(0.0, -self.state.leading),
            b"Tm" => {
                if let Some(matrix) = Matrix::of(operands) {
                    self.text = matrix;
                    self.line = matrix;
                }
            }
            _ => {}
        }
    }

    fn next_line(&mut self, x: f64, y: f64) {
        self.line = self.line.moved(x, y);
        self.text = self.line;
    }

    /// `Tj`, `TJ`, `'` and `"`; gives how many glyphs had no meaning.
    fn show(
        &mut self,
        operator: &[u8],
        operands: &[Object],
        lines: &mut Lines,
    ) -> Result<usize, ExtractError> {
        if operator == b"\""
            && let [Object::Number(word), Object::Number(character), ..] = operands
        {
            self.state.word_space = *word;
            self.state.character_space = *character;
        }
        if matches!(operator, b"'" | b"\"") {
            self.next_line(0.0, -self.state.leading);
        }
        let parts = match operands.last() {
            Some(Object::Array(parts)) => parts.as_slice(),
            Some(part) => std::slice::from_ref(part),
            None => &[],
        };
        let Some(font) = self.state.font.clone() else { return Ok(0) };
        let mut left_out = 0;
        for part in parts {
            match part {
                Object::Number(thousandths) => {
                    let back = thousandths / 1000.0 * self.state.size * self.state.scale;
                    self.text = self.text.moved(-back, 0.0);
                }
                Object::String(string) => left_out += self.show_string(&font, string, lines)?,
                _ => {}
            }
        }
        Ok(left_out)
    }

    fn show_string(
        &mut self,
        font: &Font,
        string: &[u8],
        lines: &mut Lines,
    ) -> Result<usize, ExtractError> {
        let State { size, scale, character_space, word_space, rise, matrix, .. } = self.state;
        let (mut shown, mut left_out, mut advance) = (String::new(), 0, 0.0);
        for glyph in font.glyphs(string) {
            match &glyph.text {
                Some(text) if shown.len() < lines.room() => shown.push_str(text),
                Some(_) => return Err(lines::no_room()),
                None => left_out += 1,
            }
            let space = character_space + if glyph.is_space { word_space } else { 0.0 };
            advance += (glyph.width / 1000.0 * size + space) * scale;
        }
        let start = self.text.moved(0.0, rise).then(matrix);
        self.text = self.text.moved(advance, 0.0);
        let end = self.text.moved(0.0, rise).then(matrix);
        lines.push(&shown, Shown { start, end, size, measured: font.measured })?;
        Ok(left_out)
    }
}

/// Where a string is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) start: Matrix,
    pub(super) end: Matrix,
    /// Of the font, in units of the matrices.
    pub(super) size: f64,
    /// Whether the end is the font's word or a guess.
    pub(super) measured: bool,
}

/// Skips an image written into the page, up to its `EI`.
fn skip_image(content: &[u8], at: &mut usize) {
    let rest = &content[(*at).min(content.len())..];
    let ends = |window: &[u8]| is_space(window[0]) && &window[1..3] == b"EI" && is_space(window[3]);
    let length: Range<usize> = 0..rest.windows(4).position(ends).map_or(rest.len(), |at| at + 3);
    *at += length.end;
}
