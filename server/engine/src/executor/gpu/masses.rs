//! Attention masses asked of a step's rows.

use pith_kernels::AttentionShape;
use pith_kernels::device::attention::{MassAsk, MassRanges, attention_mass};
use pith_kernels::device::kv::DeviceKv;
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec};

use crate::step::{Step, Want};

/// What is asked of each layer that is asked anything. Rare, so its memory is taken when it is needed.
#[derive(Debug, Default)]
pub(super) struct Masses {
    layers: Vec<LayerMasses>,
}

#[derive(Debug)]
struct LayerMasses {
    layer: usize,
    ranges: MassRanges,
    /// The want and the spans of each ask.
    wants: Vec<(usize, usize)>,
}

/// Where the answers come to be.
#[derive(Debug)]
pub(super) struct Room {
    found: DeviceVec<f32>,
    workspace: DeviceVec<f32>,
}

impl Masses {
    /// Appends what is asked to a step's words.
    pub(super) fn pack(step: &Step, words: &mut Vec<u32>) -> Result<Self, DeviceError> {
        let mut asked: Vec<(usize, usize, MassAsk<'_>)> = Vec::new();
        for (index, (row, want)) in step.wants.iter().enumerate() {
            let Want::AttentionMass(spec) = want else { continue };
            let after = step.sequences.partition_point(|s| s.first_row <= *row);
            // Checked: sequences cover all rows, the first from row 0 on.
            let Some(sequence) = step.sequences[..after].last() else { continue };
            let context = step.positions[*row as usize] as usize + 1;
            asked.push((
                spec.layer as usize,
                index,
                MassAsk {
                    row: *row as usize,
                    context,
                    blocks: &sequence.blocks,
                    heads: &spec.heads,
                    spans: &spec.spans,
                },
            ));
        }
        asked.sort_by_key(|&(layer, index, _)| (layer, index));
        let mut layers = Vec::new();
        for of_layer in asked.chunk_by(|a, b| a.0 == b.0) {
            let asks: Vec<MassAsk<'_>> = of_layer.iter().map(|&(.., ask)| ask).collect();
            layers.push(LayerMasses {
                layer: of_layer[0].0,
                ranges: MassRanges::pack(&asks, words)?,
                wants: of_layer.iter().map(|&(_, want, ask)| (want, ask.spans.len())).collect(),
            });
        }
        Ok(Self { layers })
    }

    /// Memory for the answers; `None` where nothing is asked.
    pub(super) fn room(&self, device: &Device) -> Result<Option<Room>, DeviceError> {
        if self.layers.is_empty() {
            return Ok(None);
        }
        let spans = self.layers.iter().map(|asked| asked.ranges.spans()).sum();
        let most = self.layers.iter().map(|asked| asked.ranges.workspace()).max().unwrap_or(0);
        Ok(Some(Room {
            found: DeviceVec::new(device, spans)?,
            workspace: DeviceVec::new(device, most)?,
        }))
    }

    /// Finds what is asked of `layer`, whose keys are in place.
    #[expect(clippy::too_many_arguments, reason = "a layer's state, and where its masses go")]
    pub(super) fn weigh(
        &self,
        device: &Device,
        layer: usize,
        shape: &AttentionShape,
        kv: &DeviceKv,
        queries: DeviceSlice<'_, u16>,
        words: DeviceSlice<'_, u32>,
        room: &Room,
    ) -> Result<(), DeviceError> {
        let mut first = 0;
        for asked in &self.layers {
            let end = first + asked.ranges.spans();
            if asked.layer == layer {
                let (workspace, out) = (room.workspace.as_slice(), room.found.slice(first..end));
                attention_mass(device, shape, kv, queries, words, &asked.ranges, workspace, out)?;
            }
            first = end;
        }
        Ok(())
    }

    /// Deals `found` out to the wants it belongs to: `(want, masses)`.
    pub(super) fn deal(&self, found: &[f32]) -> Vec<(usize, Vec<f32>)> {
        let mut rest = found;
        let mut dealt = Vec::new();
        for &(want, spans) in self.layers.iter().flat_map(|asked| &asked.wants) {
            let (mine, after) = rest.split_at(spans.min(rest.len()));
            dealt.push((want, mine.to_vec()));
            rest = after;
        }
        dealt
    }
}

impl Room {
    /// All that was found, layer by layer.
    pub(super) fn found(&self) -> DeviceSlice<'_, f32> {
        self.found.as_slice()
    }
}
