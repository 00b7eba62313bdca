//! RoPE tables.
//!
//! Scaling: linear (Chen et al., arXiv 2306.15595), YaRN (Peng et al., arXiv 2309.00071), and the
//! per-pair factors that Llama 3 files carry as a tensor.

use std::f64::consts::TAU;

use super::Rope;
use super::keys::Keys;
use crate::ModelError;

/// The context is stretched by this much.
pub(crate) enum Scaling {
    None,
    Linear { factor: f64 },
    Yarn(Yarn),
}

/// How YaRN stretches.
pub(crate) struct Yarn {
    pub(crate) factor: f64,
    pub(crate) original_context: f64,
    /// Share of extrapolation; 1 is YaRN, 0 linear interpolation.
    pub(crate) extrapolation: f64,
    /// Rotations over the original context above which a pair is left as it is.
    pub(crate) beta_fast: f64,
    /// Rotations below which a pair is fully interpolated.
    pub(crate) beta_slow: f64,
}

/// What a model says of its positions.
pub(crate) struct RopeSettings {
    scaling: Scaling,
    /// Multiplies cosines and sines.
    magnitude: f64,
}

impl RopeSettings {
    /// What `{architecture}.rope.scaling.*` says.
    pub(super) fn read(keys: &Keys<'_>, context: usize) -> Result<Self, ModelError> {
        // Whether the model was tuned for its scaling changes nothing that is computed.
        keys.ignore("rope.scaling.finetuned");
        let old_factor = keys.f32("rope.scale_linear")?;
        let factor = f64::from(keys.f32("rope.scaling.factor")?.or(old_factor).unwrap_or(0.0));
        if factor < 0.0 {
            return Err(keys.invalid("rope.scaling.factor", "is negative"));
        }
        // Writers leave 0 where there is no scaling.
        let factor = if factor == 0.0 { 1.0 } else { factor };
        let original =
            keys.size("rope.scaling.original_context_length", super::limits::MAX_CONTEXT)?;
        let positive = |key, default| Ok(f64::from(keys.positive(key)?.unwrap_or(default)));
        let beta_fast = positive("rope.scaling.yarn_beta_fast", 32.0)?;
        let beta_slow = positive("rope.scaling.yarn_beta_slow", 1.0)?;
        let extrapolation = keys.f32("rope.scaling.yarn_ext_factor")?.map_or(1.0, f64::from);
        let attention_factor = positive("rope.scaling.attn_factor", 1.0)?
            * positive("rope.scaling.yarn_attn_factor", 1.0)?;
        // A file that gives a factor and no type means linear.
        let scaling = match keys.str("rope.scaling.type")?.unwrap_or("linear") {
            "none" => Scaling::None,
            "linear" if factor == 1.0 => Scaling::None,
            "linear" => Scaling::Linear { factor },
            "yarn" => Scaling::Yarn(Yarn {
                factor,
                original_context: original.unwrap_or(context) as f64,
                extrapolation: if extrapolation < 0.0 { 1.0 } else { extrapolation },
                beta_fast,
                beta_slow,
            }),
            other => return Err(keys.unsupported("rope.scaling.type", &format!("= {other:?}"))),
        };
        let magnitude = attention_factor * scaling.magnitude();
        Ok(Self { scaling, magnitude })
    }

    /// The settings of a layer that is not stretched.
    pub(crate) fn plain() -> Self {
        Self { scaling: Scaling::None, magnitude: 1.0 }
    }

    /// These; `magnitude` multiplies cosines and sines, by default as `scaling` has it.
    pub(crate) fn new(scaling: Scaling, magnitude: Option<f64>) -> Self {
        Self { magnitude: magnitude.unwrap_or_else(|| scaling.magnitude()), scaling }
    }

    /// The table of `dims` rotated dimensions; `divisors` divide each pair's frequency.
    pub(crate) fn table(
        &self,
        adjacent: bool,
        dims: usize,
        base: f64,
        divisors: Option<&[f32]>,
    ) -> Result<Rope, ModelError> {
        let inv_freq = (0..dims / 2)
            .map(|pair| {
                let plain = base.powf(-2.0 * pair as f64 / dims as f64);
                let divisor = divisors.map_or(1.0, |divisors| f64::from(divisors[pair]));
                self.stretch(plain / divisor, pair, dims, base) as f32
            })
            .collect::<Vec<_>>();
        let magnitude = self.magnitude as f32;
        if !magnitude.is_finite() || inv_freq.iter().any(|freq| !freq.is_finite()) {
            return Err(ModelError::Invalid("its RoPE settings give no finite angles".to_owned()));
        }
        Ok(Rope { adjacent, inv_freq, magnitude })
    }

    fn stretch(&self, plain: f64, pair: usize, dims: usize, base: f64) -> f64 {
        match &self.scaling {
            Scaling::None => plain,
            Scaling::Linear { factor } => plain / factor,
            Scaling::Yarn(yarn) => {
                let share = yarn.extrapolated(pair, dims, base) * yarn.extrapolation;
                plain / yarn.factor * (1.0 - share) + plain * share
            }
        }
    }
}

impl Scaling {
    /// YaRN sharpens attention as the context grows: section 3.4 of the paper.
    fn magnitude(&self) -> f64 {
        match self {
            Self::Yarn(yarn) if yarn.extrapolation != 0.0 => 1.0 + 0.1 * yarn.factor.ln(),
            _ => 1.0,
        }
    }
}

impl Yarn {
    /// How much of pair `pair` keeps its frequency: 1 for pairs that rotate often, 0 for those that
    /// do not, linear between.
    fn extrapolated(&self, pair: usize, dims: usize, base: f64) -> f64 {
        // The pair (a real number) that rotates `rotations` times over the original context.
        let pair_of = |rotations: f64| {
            dims as f64 * (self.original_context / (rotations * TAU)).ln() / (2.0 * base.ln())
        };
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(dims as f64 - 1.0);
        let ramp = (pair as f64 - low) / (high - low).max(0.001);
        1.0 - ramp.clamp(0.0, 1.0)
    }
}
