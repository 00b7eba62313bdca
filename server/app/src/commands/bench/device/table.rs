//! A card's figures as text for people: a kernel a line, its sizes side by side.

use std::io;

use pith_kernels::device::measure::{Amount, Ceilings, Cell, Measured, Task, Work};
use pith_kernels::device::{DeviceError, DeviceLimits};

/// The card, its ceilings, and how to read what follows.
pub(super) fn head(
    out: &mut impl io::Write,
    limits: &DeviceLimits,
    ceilings: &Ceilings,
) -> io::Result<()> {
    let (major, minor) = limits.capability;
    writeln!(
        out,
        "{}, sm_{major}{minor}, {} multiprocessors",
        limits.name, limits.multiprocessors
    )?;
    writeln!(out, "copy {:.0} GB/s", ceilings.copy.rate() / 1e9)?;
    match &ceilings.product {
        Ok(product) => writeln!(out, "product {:.1} TFLOP/s", product.rate() / 1e12)?,
        Err(why) => writeln!(out, "product: {why}")?,
    }
    writeln!(out, "rows: rate, or microseconds of small kernels, and share of copy or product")
}

/// One kernel.
pub(super) fn line(
    out: &mut impl io::Write,
    work: &Work,
    cells: &[Cell],
    ceilings: &Ceilings,
) -> io::Result<()> {
    write!(out, "{:<28}", work.name)?;
    let mut reasons: Vec<&DeviceError> = Vec::new();
    for Cell { rows, measured } in cells {
        let text = match measured {
            Ok(measured) => figure(&work.task, measured, ceilings.share(measured)),
            Err(why) => {
                if !reasons.contains(&why) {
                    reasons.push(why);
                }
                "-".to_owned()
            }
        };
        write!(out, " {rows:>5}: {text:<22}")?;
    }
    writeln!(out)?;
    for why in reasons {
        writeln!(out, "    {why}")?;
    }
    Ok(())
}

fn figure(task: &Task, measured: &Measured, share: Option<f64>) -> String {
    let value = match (task, measured.amount) {
        (Task::Rows(_), _) => format!("{:.1} us", measured.seconds * 1e6),
        (_, Amount::Bytes(_)) => format!("{:.0} GB/s", measured.rate() / 1e9),
        (_, Amount::Operations(_)) => format!("{:.1} TFLOP/s", measured.rate() / 1e12),
    };
    match share {
        Some(share) => format!("{value} {:.0} %", 100.0 * share),
        None => value,
    }
}
