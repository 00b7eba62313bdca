//! Attention masses asked of a step's rows.

use pith_kernels::AttentionShape;
use pith_kernels::device::attention::{MassAsk, MassRanges, attention_mass};
use pith_kernels::device::kv::DeviceKv;
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec, Download};

use crate::step::{Step, Want};

/// What is asked of each layer that is asked anything.
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

/// Where the answers come to be. Asked for rarely, so it takes no memory before the first, and keeps it from then on.
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

    /// Masses asked for, of all layers.
    fn spans(&self) -> usize {
        self.layers.iter().map(|asked| asked.ranges.spans()).sum()
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
    pub(super) fn new(device: &Device) -> Result<Self, DeviceError> {
        Ok(Self { found: DeviceVec::new(device, 0)?, workspace: DeviceVec::new(device, 0)? })
    }

    /// Grows to what `masses` take.
    pub(super) fn make_for(&mut self, masses: &Masses) -> Result<(), DeviceError> {
        let most = masses.layers.iter().map(|asked| asked.ranges.workspace()).max();
        self.found.make_room(masses.spans())?;
        self.workspace.make_room(most.unwrap_or(0))
    }

    /// Begins to fetch what was found of `masses`, layer by layer; `None` where nothing was asked.
    pub(super) fn fetch(&self, masses: &Masses) -> Result<Option<Download<f32>>, DeviceError> {
        match masses.layers.is_empty() {
            true => Ok(None),
            false => self.found.slice(0..masses.spans()).download().map(Some),
        }
    }
}
