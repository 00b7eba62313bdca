//! How `config.json` describes positions: in `rope_parameters`, or as before it in `rope_theta` and `rope_scaling`.

use std::f64::consts::TAU;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::config::{Config, Family, invalid, unsupported};
use crate::ModelError;
use crate::plan::limits::MAX_CONTEXT;
use crate::plan::{Rope, RopeSettings, Scaling, Yarn};

/// Base where the file is silent.
const BASE: f64 = 10_000.0;
/// The same for Gemma 3's layers that see everything.
const GEMMA3_BASE: f64 = 1_000_000.0;

/// One description, or one for each kind of layer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawRope {
    full_attention: Option<Box<RawRope>>,
    sliding_attention: Option<Box<RawRope>>,
    rope_type: Option<String>,
    /// What `rope_type` was called.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
    mscale: Option<IgnoredAny>,
    mscale_all_dim: Option<IgnoredAny>,
}

/// What a description comes to.
struct Settings {
    base: f64,
    rope: RopeSettings,
    /// What each pair's frequency is divided by.
    divisors: Option<Vec<f32>>,
    /// Longest text after stretching, tokens.
    context: usize,
}

/// The plan's tables, and the longest text. Files of transformers are not reordered: pairs are halves of a head.
pub(super) fn tables(config: &Config) -> Result<(Vec<Rope>, usize), ModelError> {
    let raw = &config.raw;
    let given = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let gemma = config.family == Family::Gemma3;
    let empty = RawRope::default();
    let whole = given.unwrap_or(&empty);
    if !gemma && (whole.full_attention.is_some() || whole.sliding_attention.is_some()) {
        return Err(unsupported("rope_parameters", "one for each kind of layer"));
    }
    let partial = whole.partial_rotary_factor.or(raw.partial_rotary_factor);
    if partial.is_some_and(|share| share != 1.0) {
        return Err(unsupported("partial_rotary_factor", "other than 1"));
    }
    let table = |raw: &RawRope, base| {
        let Settings { base, rope, divisors, context } = settings(raw, base, config)?;
        let rope = rope.table(false, config.head_dim, base, divisors.as_deref())?;
        Ok::<_, ModelError>((rope, context))
    };
    let full = whole.full_attention.as_deref().unwrap_or(whole);
    let base = raw.rope_theta.unwrap_or(if gemma { GEMMA3_BASE } else { BASE });
    let (rope, context) = table(full, base)?;
    let mut ropes = vec![rope];
    if gemma {
        let local = whole.sliding_attention.as_deref().unwrap_or(&empty);
        ropes.push(table(local, raw.rope_local_base_freq.unwrap_or(BASE))?.0);
    }
    Ok((ropes, context))
}

fn settings(raw: &RawRope, base: f64, config: &Config) -> Result<Settings, ModelError> {
    let base = raw.rope_theta.unwrap_or(base);
    if !(base > 1.0 && base.is_finite()) {
        return Err(invalid("rope_theta", &format!("is {base}, not above 1")));
    }
    let kind = raw.rope_type.as_deref().or(raw.r#type.as_deref()).unwrap_or("default");
    let positive = |field: &str, value: Option<f64>| match value {
        Some(value) if value > 0.0 && value.is_finite() => Ok(value),
        Some(value) => Err(invalid(field, &format!("is {value}"))),
        None => Err(invalid(field, &format!("is missing from a rope of type {kind:?}"))),
    };
    let factor = || positive("factor", raw.factor);
    let original = |default: Option<f64>| {
        let given = raw.original_max_position_embeddings.or(default);
        positive("original_max_position_embeddings", given)
    };
    let mut settings =
        Settings { base, rope: RopeSettings::plain(), divisors: None, context: config.positions };
    match kind {
        "default" => {}
        "linear" => {
            settings.rope = RopeSettings::new(Scaling::Linear { factor: factor()? }, None);
        }
        "llama3" => {
            let low = positive("low_freq_factor", raw.low_freq_factor)?;
            let high = positive("high_freq_factor", raw.high_freq_factor)?;
            if high <= low {
                return Err(invalid("high_freq_factor", "is not above low_freq_factor"));
            }
            let (factor, original) = (factor()?, original(None)?);
            let divisor = |pair: usize| {
                let wavelength = TAU * base.powf(2.0 * pair as f64 / config.head_dim as f64);
                // 1 where a pair turns often over the original context, 0 where it does not.
                let often = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 / ((1.0 - often) / factor + often)) as f32
            };
            settings.divisors = Some((0..config.head_dim / 2).map(divisor).collect());
        }
        "yarn" => {
            if raw.mscale.is_some() || raw.mscale_all_dim.is_some() || raw.truncate == Some(false) {
                return Err(unsupported("rope_type", "yarn with mscale or without truncation"));
            }
            let original = original(Some(config.positions as f64))?;
            let yarn = Yarn {
                factor: factor()?,
                original_context: original,
                extrapolation: 1.0,
                beta_fast: positive("beta_fast", raw.beta_fast.or(Some(32.0)))?,
                beta_slow: positive("beta_slow", raw.beta_slow.or(Some(1.0)))?,
            };
            let stretched = (original * yarn.factor).min(f64::from(MAX_CONTEXT)) as usize;
            settings.context = settings.context.max(stretched);
            let magnitude = raw
                .attention_factor
                .map(|factor| positive("attention_factor", Some(factor)))
                .transpose()?;
            settings.rope = RopeSettings::new(Scaling::Yarn(yarn), magnitude);
        }
        other => return Err(unsupported("rope_type", other)),
    }
    Ok(settings)
}
