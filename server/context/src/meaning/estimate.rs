//! The nearness of sentences that were not embedded, from what is known of the others.

use crate::vectors::Nearness;

/// Gives the sentences that are not known what a straight line through the known ones says of their `sketched` nearness;
/// without it, or where it says nothing, the mean of the known ones; 0 where nothing is known.
pub(super) fn fill(near: &mut Nearness, sketched: Option<&Nearness>) {
    let Nearness { alone, window, chunk, known } = near;
    let of = |signal: fn(&Nearness) -> &[f32]| sketched.map(signal);
    line(alone, of(|near| &near.alone), known);
    line(window, of(|near| &near.window), known);
    line(chunk, of(|near| &near.chunk), known);
}

/// The same of one signal.
fn line(signal: &mut [f32], sketched: Option<&[f32]>, known: &[bool]) {
    let x = |at: usize| sketched.map_or(0.0, |sketched| f64::from(sketched[at]));
    let at_known = || known.iter().enumerate().filter(|(_, known)| **known).map(|(at, _)| at);
    let count = at_known().count().max(1) as f64;
    let mean_x = at_known().map(x).sum::<f64>() / count;
    let mean_y = at_known().map(|at| f64::from(signal[at])).sum::<f64>() / count;
    let (mut square, mut product) = (0.0, 0.0);
    for at in at_known() {
        let apart = x(at) - mean_x;
        square += apart * apart;
        product += apart * (f64::from(signal[at]) - mean_y);
    }
    let slope = if square > 1e-9 { product / square } else { 0.0 };
    for (at, known) in known.iter().enumerate() {
        if !known {
            signal[at] = (mean_y + slope * (x(at) - mean_x)) as f32;
        }
    }
}
