//! `pith bench device`

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pith_kernels::Pool;
use pith_kernels::device::measure::{self, Ceilings, Cell, Dimensions, Extent, Work};
use pith_kernels::device::{Device, DeviceError, cuda};
use pith_model::random::Shape;
use pith_model::{ModelFile, Plan};
use serde::Serialize;

use crate::commands::{Failure, report};
use crate::config::DeviceChoice;

mod table;

/// Arguments of `pith bench device`.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The card: cuda:N, or auto for the first
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Shapes of models whose layers are measured
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', default_value = "llama-3.1-8b,llama-3.2-1b", value_parser = super::offline::shape)]
    shape: Vec<Shape>,
    /// Only kernels whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Write results here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Results {
    device: String,
    copy_gb_per_s: f64,
    /// Of a product of large matrices by the vendor's library; null without one.
    product_tflop_per_s: Option<f64>,
    kernels: Vec<Kernel>,
}

/// A kernel at one size.
#[derive(Debug, Serialize)]
struct Kernel {
    shape: &'static str,
    name: String,
    rows: usize,
    /// Null where there is an error.
    seconds: Option<f64>,
    gb_per_s: Option<f64>,
    tflop_per_s: Option<f64>,
    /// Of the copy's bandwidth, or of the product's rate.
    share: Option<f64>,
    error: Option<String>,
}

pub(super) fn run(args: &DeviceArgs) -> Result<ExitCode, Failure> {
    let ordinal = match args.device {
        DeviceChoice::Cuda(ordinal) => ordinal,
        DeviceChoice::Auto => 0,
        DeviceChoice::Cpu => {
            return Err(Failure::usage("the CPU is no card")
                .hint("`cargo bench -p pith-benches` measures its kernels"));
        }
    };
    let device = cuda::device(ordinal).map_err(|error| {
        Failure::new(error).hint("`pith doctor` says what is there and what is missing")
    })?;
    let shapes = (args.shape.iter())
        .map(|&shape| {
            let file = ModelFile::random(shape).map_err(Failure::new)?;
            Ok((shape.name(), dimensions(file.plan())))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut out = io::stdout().lock();
    let (results, sound) = measure(&device, &shapes, &Extent::of_a_card(), &args.only, &mut out)?;
    report::write(&results, args.json.as_deref(), None, || report::Report::new("device"))?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sizes of the first layer; those of the others are the same in all shapes there are.
fn dimensions(plan: &Plan) -> Dimensions {
    let layer = plan.layers.first();
    let of = |size: fn(&pith_model::plan::Layer) -> usize| layer.map_or(0, size);
    Dimensions {
        hidden: plan.hidden,
        feed_forward: of(|layer| layer.feed_forward),
        heads: of(|layer| layer.heads),
        kv_heads: of(|layer| layer.kv_heads),
        head_dim: of(|layer| layer.head_dim),
        vocab: plan.vocab,
    }
}

/// Measures and prints line by line. `false`: a kernel failed; what a device has no room or no library for is no failure.
fn measure(
    device: &Device,
    shapes: &[(&'static str, Dimensions)],
    extent: &Extent,
    only: &str,
    out: &mut impl io::Write,
) -> Result<(Results, bool), Failure> {
    let pool = Pool::new(0);
    let ceilings = measure::ceilings(device, &pool, extent).map_err(Failure::new)?;
    table::head(out, device.limits(), &ceilings)?;
    let mut kernels = Vec::new();
    let mut sound = true;
    for &(shape, sizes) in shapes {
        writeln!(out, "\n{shape}")?;
        for work in measure::works(device.limits(), &sizes, extent) {
            if !work.name.contains(only) {
                continue;
            }
            let cells = work.measure(device, &pool, &sizes, extent).map_err(Failure::new)?;
            table::line(out, &work, &cells, &ceilings)?;
            sound &= cells.iter().all(is_sound);
            kernels.extend(cells.iter().map(|cell| kernel(shape, &work, cell, &ceilings)));
        }
    }
    let results = Results {
        device: device.limits().name.clone(),
        copy_gb_per_s: ceilings.copy.rate() / 1e9,
        product_tflop_per_s: ceilings.product.as_ref().ok().map(|product| product.rate() / 1e12),
        kernels,
    };
    Ok((results, sound))
}

fn is_sound(cell: &Cell) -> bool {
    use DeviceError::{Missing, OutOfMemory};
    !matches!(&cell.measured, Err(error) if !matches!(error, Missing(_) | OutOfMemory { .. }))
}

fn kernel(shape: &'static str, work: &Work, cell: &Cell, ceilings: &Ceilings) -> Kernel {
    let measured = cell.measured.as_ref().ok();
    let rate = |wanted: fn(&measure::Amount) -> bool, unit: f64| {
        measured.filter(|measured| wanted(&measured.amount)).map(|found| found.rate() / unit)
    };
    Kernel {
        shape,
        name: work.name.clone(),
        rows: cell.rows,
        seconds: measured.map(|measured| measured.seconds),
        gb_per_s: rate(|amount| matches!(amount, measure::Amount::Bytes(_)), 1e9),
        tflop_per_s: rate(|amount| matches!(amount, measure::Amount::Operations(_)), 1e12),
        share: measured.and_then(|measured| ceilings.share(measured)),
        error: cell.measured.as_ref().err().map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use pith_kernels::device::host;

    use super::*;

    #[test]
    fn every_kernel_has_a_line_and_a_result() {
        let extent = Extent {
            copy_bytes: 4096,
            product_side: 32,
            rotated_bytes: 1,
            sample_seconds: 0.0,
            samples: 1,
            few_rows: vec![1, 2],
            many_rows: vec![3],
            decode_rows: vec![1],
            decode_keys: vec![20],
            prefill_rows: vec![5],
            step_rows: vec![2],
        };
        let file = ModelFile::random(Shape::Tiny).unwrap();
        let sizes = dimensions(file.plan());
        let device = host::device(2);
        let mut text = Vec::new();
        let (results, sound) =
            measure(&device, &[("tiny", sizes)], &extent, "", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(sound, "{text}");
        for work in measure::works(device.limits(), &sizes, &extent) {
            assert!(text.contains(&work.name), "{} in {text}", work.name);
            let found = results.kernels.iter().filter(|kernel| kernel.name == work.name);
            assert_eq!(found.count(), work.rows.len());
        }
        // The host has no library of the vendor's: no ceiling for products, and a reason.
        assert!(text.contains("no library of the vendor's"), "{text}");
        assert_eq!(results.product_tflop_per_s, None);
        for kernel in &results.kernels {
            let vendor = kernel.name.starts_with("cublaslt");
            assert_eq!(kernel.error.is_some(), vendor, "{kernel:?}");
            assert_eq!(kernel.share.is_some(), kernel.gb_per_s.is_some(), "{kernel:?}");
        }
        let only = measure(&device, &[("tiny", sizes)], &extent, "rms", &mut io::sink()).unwrap();
        assert_eq!(only.0.kernels.len(), 1);
    }
}
