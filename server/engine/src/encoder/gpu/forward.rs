//! The forward pass on a device: activations in bfloat16, the residual stream and all sums in f32.

use pith_kernels::attention::BidirectionalShape;
use pith_kernels::device::encoder::{attend_texts, embed_texts, mean_rows};
use pith_kernels::device::gated::gelu;
use pith_kernels::device::matrix::{DeviceMatrix, MatmulPath, OutSlice, matmul};
use pith_kernels::device::norm::{add_bias, add_bias_f32, layer_norm, unit_rows};
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec};
use pith_model::encoder::{EncoderConfig, Encoding};

use super::weights::{LayerWeights, Norm, Weights};

/// The one kernel whose sums do not depend on how many rows there are: a text has the same bits alone and in company, and on
/// every machine with a card of that kind. The vendor's library would be faster with many rows, but tokenising takes
/// longer than either.
const PATH: MatmulPath = MatmulPath::Gemm;

/// Work space of a forward pass, made once. Rows are side by side.
#[derive(Debug)]
pub(super) struct Forward {
    device: Device,
    config: EncoderConfig,
    /// Most rows, and most texts, of a batch.
    room: (usize, usize),
    /// Token and place of each row, then where texts begin and the last one ends.
    words: DeviceVec<u32>,
    /// The residual stream, `[rows, hidden]`.
    stream: DeviceVec<f32>,
    /// What comes of the last norm, `[rows, hidden]`.
    normed: DeviceVec<u16>,
    /// Queries, keys and values of a row, one after the other.
    qkv: DeviceVec<u16>,
    /// `[rows, hidden]`.
    attended: DeviceVec<u16>,
    /// `[rows, feed_forward]`.
    wide: DeviceVec<u16>,
    /// A vector for each text.
    means: DeviceVec<f32>,
    /// Products with bfloat16 need none.
    scratch: DeviceVec<u16>,
}

/// A batch on the device.
#[derive(Clone, Copy)]
struct Batch<'a> {
    rows: usize,
    offsets: DeviceSlice<'a, u32>,
    /// Tokens of the longest text.
    longest: usize,
}

impl Forward {
    /// Room for batches of `rows` tokens of `texts` texts.
    pub(super) fn new(
        device: &Device,
        config: &EncoderConfig,
        (rows, texts): (usize, usize),
    ) -> Result<Self, DeviceError> {
        let halves = |width: usize| DeviceVec::<u16>::new(device, rows * width);
        Ok(Self {
            words: DeviceVec::new(device, 2 * rows + texts + 1)?,
            stream: DeviceVec::new(device, rows * config.hidden)?,
            normed: halves(config.hidden)?,
            qkv: halves(3 * config.hidden)?,
            attended: halves(config.hidden)?,
            wide: halves(config.feed_forward)?,
            means: DeviceVec::new(device, texts * config.hidden)?,
            scratch: DeviceVec::new(device, 0)?,
            room: (rows, texts),
            config: config.clone(),
            device: device.clone(),
        })
    }

    /// The vector of each text of `batch`, one after the other.
    pub(super) fn run(
        &self,
        weights: &Weights,
        batch: &[Encoding],
    ) -> Result<Vec<f32>, DeviceError> {
        let device = &self.device;
        let rows: usize = batch.iter().map(|encoding| encoding.ids.len()).sum();
        let (most_rows, most_texts) = self.room;
        if rows > most_rows || batch.len() > most_texts {
            let why = format!("a batch of {} texts and {rows} tokens", batch.len());
            return Err(DeviceError::Shape(why));
        }
        let words = words_of(batch, rows);
        let on_device = self.words.slice(0..words.len());
        on_device.upload(&words)?;
        let (ids, places) = (on_device.first(rows), on_device.slice(rows..2 * rows));
        let longest = batch.iter().map(|encoding| encoding.ids.len()).max().unwrap_or(0);
        let batch = Batch { rows, offsets: on_device.slice(2 * rows..words.len()), longest };
        let stream = self.stream.as_slice().first(rows * self.config.hidden);
        let (tokens, positions) = (weights.tokens.as_slice(), weights.positions.as_slice());
        embed_texts(device, tokens, positions, ids, places, stream)?;
        self.norm(&weights.norm, rows)?;
        for layer in &weights.layers {
            self.layer(layer, batch)?;
        }
        let width = self.config.hidden;
        let means = self.means.slice(0..(batch.offsets.len() - 1) * width);
        mean_rows(device, stream, width, batch.offsets, means)?;
        unit_rows(device, means, width)?;
        means.download()?.wait()
    }

    fn layer(&self, weights: &LayerWeights, batch: Batch<'_>) -> Result<(), DeviceError> {
        let (device, rows, config) = (&self.device, batch.rows, &self.config);
        let head_dim = config.hidden / config.heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = BidirectionalShape { heads: config.heads, head_dim, scale };
        let stream = self.stream.as_slice().first(rows * config.hidden);
        let normed = self.normed.as_slice().first(rows * config.hidden);
        let qkv = self.qkv.as_slice().first(rows * 3 * config.hidden);
        let attended = self.attended.as_slice().first(rows * config.hidden);
        let wide = self.wide.as_slice().first(rows * config.feed_forward);

        self.multiply(&weights.qkv, normed, rows, OutSlice::Bf16(qkv))?;
        add_bias(device, qkv, weights.qkv_bias.as_slice())?;
        attend_texts(device, shape, qkv, batch.offsets, batch.longest, attended)?;
        self.multiply(&weights.attention_output, attended, rows, OutSlice::AddF32(stream))?;
        add_bias_f32(device, stream, weights.attention_output_bias.as_slice())?;
        self.norm(&weights.attention_norm, rows)?;

        self.multiply(&weights.up, normed, rows, OutSlice::Bf16(wide))?;
        gelu(device, wide, weights.up_bias.as_slice())?;
        self.multiply(&weights.down, wide, rows, OutSlice::AddF32(stream))?;
        add_bias_f32(device, stream, weights.down_bias.as_slice())?;
        self.norm(&weights.feed_forward_norm, rows)
    }

    /// Normalises the stream, and fills `normed`.
    fn norm(&self, norm: &Norm, rows: usize) -> Result<(), DeviceError> {
        let stream = self.stream.as_slice().first(rows * self.config.hidden);
        let normed = self.normed.as_slice().first(rows * self.config.hidden);
        let (weight, bias) = (norm.weight.as_slice(), norm.bias.as_slice());
        layer_norm(&self.device, stream, weight, bias, norm.eps, Some(stream), normed)
    }

    fn multiply(
        &self,
        matrix: &DeviceMatrix,
        input: DeviceSlice<'_, u16>,
        rows: usize,
        out: OutSlice<'_>,
    ) -> Result<(), DeviceError> {
        matmul(&self.device, matrix, input, rows, out, self.scratch.as_slice(), PATH)
    }
}

/// What the device is told of `batch`, all in one upload.
fn words_of(batch: &[Encoding], rows: usize) -> Vec<u32> {
    let mut words = Vec::with_capacity(2 * rows + batch.len() + 1);
    words.extend(batch.iter().flat_map(|encoding| encoding.ids.iter().copied()));
    words.extend(batch.iter().flat_map(|encoding| 0..encoding.ids.len() as u32));
    words.push(0);
    let mut end = 0;
    words.extend(batch.iter().map(|encoding| {
        end += encoding.ids.len() as u32;
        end
    }));
    words
}
