//! What an encoder of short texts needs beside norms and products.
//!
//! Rows of all texts lie side by side; text `i` has those from `offsets[i]` up to `offsets[i + 1]`. A text's results do not
//! depend on the others.

use super::shape::{GROUP, rows_of, wide};
use super::{Device, DeviceError, DeviceSlice, Launch};
use crate::attention::BidirectionalShape;

/// Threads of a block, each with a column or a group of them.
const THREADS: u32 = 128;
/// Rows of queries a block attends for.
const TILE: usize = 64;

/// `stream[i] = words[tokens[i]] + positions[places[i]]`. `words` is bfloat16; `positions`, as long a row as in `stream`,
/// holds what the type of a text adds too. Numbers beyond either table stand for its last row.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn embed_texts(
    device: &Device,
    words: DeviceSlice<'_, u16>,
    positions: DeviceSlice<'_, f32>,
    tokens: DeviceSlice<'_, u32>,
    places: DeviceSlice<'_, u32>,
    stream: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let rows = tokens.len();
    places.expect_len(rows, "places of tokens")?;
    if rows == 0 {
        return stream.expect_len(0, "rows of no token");
    }
    let hidden = stream.len() / rows;
    stream.expect_len(rows * hidden, "rows of the stream")?;
    let vocab = rows_of(words, hidden, "the embedding")?;
    let position_rows = rows_of(positions, hidden, "positions")?;
    if vocab == 0 || position_rows == 0 {
        return Err(DeviceError::Shape("an embedding of nothing".to_owned()));
    }
    let launch = Launch::plane(rows, hidden.div_ceil(GROUP * THREADS as usize), THREADS);
    let starts = [words.address(), positions.address(), stream.address()];
    let arguments = [
        words.into(),
        vocab.into(),
        positions.into(),
        position_rows.into(),
        tokens.into(),
        places.into(),
        hidden.into(),
        wide(hidden, starts).into(),
        stream.into(),
    ];
    // SAFETY: a column of the grid has one token and place, both clamped, and one row of the stream.
    unsafe { device.launch("embed_texts", launch, &arguments) }
}

/// `out[i]` = the mean of text `i`'s rows of `input`, rows of `width`; zeros for a text without rows, or whose offsets
/// `input` does not have.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn mean_rows(
    device: &Device,
    input: DeviceSlice<'_, f32>,
    width: usize,
    offsets: DeviceSlice<'_, u32>,
    out: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let rows = rows_of(input, width, "the input")?;
    let texts = texts_of(offsets)?;
    out.expect_len(texts * width, "means of texts")?;
    let launch = Launch::plane(texts, width.div_ceil(THREADS as usize), THREADS);
    let arguments = [input.into(), rows.into(), offsets.into(), width.into(), out.into()];
    // SAFETY: a column of the grid has one text, whose rows are checked against those there are.
    unsafe { device.launch("mean_rows", launch, &arguments) }
}

/// `out[i, :]` = attention of row `i` over the rows of its own text, none of which has more than `longest` (rows beyond it
/// are not written). Rows of `out` are `heads * head_dim` long, those of `qkv` three times as long: all queries, then keys,
/// then values. Dimensions are a multiple of 8, at most 128; both slices are aligned to 16 bytes.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn attend_texts(
    device: &Device,
    shape: BidirectionalShape,
    qkv: DeviceSlice<'_, u16>,
    offsets: DeviceSlice<'_, u32>,
    longest: usize,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    let BidirectionalShape { heads, head_dim, scale } = shape;
    let (kernel, dims) = match head_dim {
        1..=32 => ("attend_texts_32", 32),
        33..=64 => ("attend_texts_64", 64),
        65..=96 => ("attend_texts_96", 96),
        97..=128 => ("attend_texts_128", 128),
        _ => return Err(DeviceError::Shape(format!("texts attended by {head_dim} dimensions"))),
    };
    if !wide(head_dim, [qkv.address(), out.address()]) {
        let why = format!("heads of {head_dim} dimensions that are not aligned");
        return Err(DeviceError::Shape(why));
    }
    let rows = rows_of(out, heads * head_dim, "what is attended")?;
    qkv.expect_len(3 * out.len(), "queries, keys and values of texts")?;
    let tiles = longest.div_ceil(TILE);
    let blocks = texts_of(offsets)?.saturating_mul(tiles);
    // A tile of keys and one of values, their rows a little apart.
    let shared = 2 * TILE * (dims + 8) * size_of::<u16>();
    let launch = Launch::plane(blocks, heads, 2 * TILE as u32).shared(shared);
    let arguments = [
        qkv.into(),
        offsets.into(),
        rows.into(),
        tiles.into(),
        heads.into(),
        head_dim.into(),
        scale.into(),
        out.into(),
    ];
    // SAFETY: a block has a tile of one text, whose rows are checked against those there are.
    unsafe { device.launch(kernel, launch, &arguments) }
}

/// Texts between as many offsets.
fn texts_of(offsets: DeviceSlice<'_, u32>) -> Result<usize, DeviceError> {
    match offsets.len() {
        0 => Err(DeviceError::Shape("texts without offsets".to_owned())),
        count => Ok(count - 1),
    }
}
