//! Line plots as inline SVG: no script, no font, no colour of their own. The page's style sheet colours them
//! (`.s0` to `.s5`, `.grid`, `.axis`), so that they are legible in light and in dark mode.

use std::fmt::Write as _;

use super::report::escape;

#[cfg(test)]
mod tests;

/// Size of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
/// Room around the plotted area for tick labels and axis names.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Colours the style sheet has; further series begin again with the first.
pub(super) const COLOURS: usize = 6;
/// Ticks at least so far apart leave room for their labels.
const APART: f64 = 32.0;
/// An axis whose greatest value is this many times its least is logarithmic.
const LOG_RATIO: f64 = 16.0;
/// About as many ticks.
const TICKS: f64 = 6.0;

/// What lies on the horizontal axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Values that were chosen: ticks stand at them, and points are marked and say what they are when pointed at.
    #[default]
    Chosen,
    /// Values that were measured.
    Measured,
    /// Time, never on a logarithmic axis.
    Time,
}

/// Some lines over common axes.
#[derive(Debug, Clone, Default)]
pub(super) struct Plot {
    pub(super) kind: Kind,
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) series: Vec<Series>,
}

/// A line. Points that are not finite are left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Plot {
    /// The plot as an HTML figure; nothing if there is no point.
    pub(super) fn html(&self) -> String {
        let series: Vec<Series> = self.series.iter().filter_map(Series::finite).collect();
        let (xs, ys): (Vec<f64>, Vec<f64>) =
            series.iter().flat_map(|line| &line.points).copied().unzip();
        let (Some(x), Some(y)) = (Axis::horizontal(&xs, self.kind), Axis::vertical(&ys)) else {
            return String::new();
        };
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "<figure><figcaption>{}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title),
            escape(&format!("{}: {} over {}", self.title, self.y, self.x)),
        );
        grid(&mut out, &x, &y);
        self.names(&mut out);
        for (index, line) in series.iter().enumerate() {
            line.draw(&mut out, index % COLOURS, &x, &y);
            if self.kind == Kind::Chosen {
                line.mark(&mut out, index % COLOURS, &x, &y);
            }
        }
        out.push_str("</svg>\n");
        if series.len() > 1 || series.iter().any(|line| !line.name.is_empty()) {
            legend(&mut out, &series);
        }
        out.push_str("</figure>\n");
        out
    }

    fn names(&self, out: &mut String) {
        let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text class=\"name\" x=\"14\" y=\"{middle_y}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 14 {middle_y})\">{}</text>\n",
            HEIGHT - 8.0,
            escape(&self.x),
            escape(&self.y),
        );
    }
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    let bottom = HEIGHT - BOTTOM;
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            figure(tick),
        );
    }
    for tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 15.0,
            figure(tick),
        );
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{}\"/>", WIDTH - RIGHT,);
}

fn legend(out: &mut String, series: &[Series]) {
    out.push_str("<ul class=\"legend\">");
    for (index, line) in series.iter().enumerate() {
        let colour = index % COLOURS;
        let _ = write!(out, "<li><i class=\"s{colour}\"></i>{}</li>", escape(&line.name));
    }
    out.push_str("</ul>\n");
}

impl Series {
    /// The line without what cannot be drawn, if anything is left.
    fn finite(&self) -> Option<Self> {
        let drawn = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points: Vec<_> = self.points.iter().copied().filter(drawn).collect();
        (!points.is_empty()).then(|| Self { name: self.name.clone(), points })
    }

    fn draw(&self, out: &mut String, colour: usize, x: &Axis, y: &Axis) {
        let place = |&(at, value): &(f64, f64)| format!("{:.1},{:.1}", x.place(at), y.place(value));
        let points = self.points.iter().map(place).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "<polyline class=\"s{colour}\" points=\"{points}\"/>");
    }

    fn mark(&self, out: &mut String, colour: usize, x: &Axis, y: &Axis) {
        for &(at, value) in &self.points {
            let _ = writeln!(
                out,
                "<circle class=\"s{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {} at {}</title></circle>",
                x.place(at),
                y.place(value),
                escape(&self.name),
                figure(value),
                figure(at),
            );
        }
    }
}

/// The cumulative distribution of `values`, in at most `most` points: the share of them, in percent, that is no
/// greater.
pub(super) fn cumulative(values: &[f64], most: usize) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    let points = sorted.len().min(most.max(2));
    let step = |n: usize| {
        let index = if points > 1 { n * last / (points - 1) } else { last };
        (sorted[index], (index + 1) as f64 / sorted.len() as f64 * 100.0)
    };
    (0..points).map(step).collect()
}

/// Values on a stretch of the drawing.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Ticks other than round numbers.
    chosen: Vec<f64>,
    /// Where `low` and `high` lie.
    from: f64,
    to: f64,
}

impl Axis {
    /// From the least value to the greatest.
    fn horizontal(values: &[f64], kind: Kind) -> Option<Self> {
        let (low, high) = range(values)?;
        let log = kind != Kind::Time && low > 0.0 && high / low >= LOG_RATIO;
        let mut chosen = if kind == Kind::Chosen { values.to_vec() } else { Vec::new() };
        chosen.sort_by(f64::total_cmp);
        // A single value gets room on both sides.
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        Some(Self { low, high, log, chosen, from: LEFT, to: WIDTH - RIGHT })
    }

    /// From 0, so that heights compare, to a little above the greatest.
    fn vertical(values: &[f64]) -> Option<Self> {
        let (low, high) = range(values)?;
        let high = if high > 0.0 { high * 1.05 } else { 1.0 };
        let (low, chosen) = (low.min(0.0), Vec::new());
        Some(Self { low, high, log: false, chosen, from: HEIGHT - BOTTOM, to: TOP })
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.chosen.is_empty() {
            let mut ticks = self.chosen.clone();
            ticks.dedup_by(|next, kept| self.place(*next) - self.place(*kept) < APART);
            return ticks;
        }
        let within =
            |tick: &f64| *tick >= self.low * (1.0 - 1e-9) && *tick <= self.high * (1.0 + 1e-9);
        if self.log {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            // One decade or two have room for more.
            let steps: &[f64] = if last - first <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let decades = (first..=last).map(|decade| 10_f64.powi(decade));
            let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
            return ticks.filter(within).collect();
        }
        let step = round_step((self.high - self.low) / TICKS);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

fn range(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    Some((low, high))
}

/// The least of 1, 2 and 5 times a power of ten that is no less than `step`.
pub(super) fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|round| *round >= step * (1.0 - 1e-9)).unwrap_or(step)
}

/// A number with three significant digits where it has a fraction, for labels.
pub(super) fn figure(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6);
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
