//! What decode steps cost, by their rows.
//!
//! Kernels take rows in tiles and change their ways with the number of rows, so cost is no smooth function of it:
//! each small number has a cell of its own. Contexts grow and neighbours come and go meanwhile, which
//! moves all cells alike: a level common to all follows fast, the cells slowly, so that a cell measured long ago
//! can still be compared.

/// Rows with a cell of their own; beyond, one cell for each power of two.
pub const EXACT_ROWS: usize = 64;
const CELLS: usize = EXACT_ROWS + 8;
/// Weight of the newest measurement for the level and for its cell.
const LEVEL_GAIN: f64 = 0.2;
const CELL_GAIN: f64 = 0.1;
/// A measurement further from what was expected than this factor counts as this far.
const OUTLIER: f64 = 2.0;
/// Sizes not measured are taken to cost this share of what lies between their neighbours: what looks good is tried,
/// and known from then on.
const OPTIMISM: f64 = 0.75;
/// What a row beyond the largest size measured is taken to cost, in shares of an average row.
const MARGINAL: f64 = 0.5;
/// Steps after which a measurement counts no more in [`DecodeCosts::expected`]: one unlucky moment does not
/// decide for ever.
const FRESH_STEPS: u64 = 4096;

/// See the module.
#[derive(Debug, Clone)]
pub struct DecodeCosts {
    level: f64,
    /// In units of the level.
    cells: [Option<Cell>; CELLS],
    steps: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    seconds: f64,
    /// When last measured.
    step: u64,
}

impl Default for DecodeCosts {
    fn default() -> Self {
        Self { level: 1.0, cells: [None; CELLS], steps: 0 }
    }
}

impl DecodeCosts {
    /// Takes in a step of `rows` decode rows and nothing else.
    pub fn record(&mut self, rows: usize, seconds: f64) {
        self.steps += 1;
        let (at, step) = (cell(rows), self.steps);
        match &mut self.cells[at] {
            Some(cell) => {
                let ratio = seconds / (self.level * cell.seconds).max(f64::MIN_POSITIVE);
                let ratio = ratio.clamp(1.0 / OUTLIER, OUTLIER);
                self.level *= ratio.powf(LEVEL_GAIN);
                *cell = Cell { seconds: cell.seconds * ratio.powf(CELL_GAIN), step };
            }
            None => {
                // A first time that is longer than the rows would take one by one was disturbed.
                let one_by_one = self.fresh_below(at).map_or(f64::INFINITY, |(below, known)| {
                    known * rows as f64 / rows_of(below) as f64
                });
                let seconds = seconds.min(one_by_one) / self.level;
                self.cells[at] = Some(Cell { seconds, step });
            }
        }
    }

    /// The largest size measured that is not above `rows`, and its seconds.
    pub fn below(&self, rows: usize) -> Option<(usize, f64)> {
        let (size, seconds) = (0..=cell(rows)).rev().find_map(|at| self.measured(at))?;
        Some((size.min(rows), seconds))
    }

    /// The smallest size measured that is not below `rows`, and its seconds.
    pub fn above(&self, rows: usize) -> Option<(usize, f64)> {
        (cell(rows)..CELLS).find_map(|at| self.measured(at))
    }

    fn measured(&self, at: usize) -> Option<(usize, f64)> {
        Some((rows_of(at), self.level * self.cells[at]?.seconds))
    }

    /// Seconds to expect of a step of `rows` rows; `None` before this or any smaller size was measured.
    pub fn expected(&self, rows: usize) -> Option<f64> {
        let at = cell(rows);
        if let Some(seconds) = self.fresh(at) {
            return Some(seconds);
        }
        let (below, low) = self.fresh_below(at)?;
        let above = (at + 1..CELLS).find_map(|i| Some((i, self.fresh(i)?)));
        let beyond = (rows.max(rows_of(at)) - rows_of(below)) as f64;
        Some(match above {
            Some((above, high)) => {
                let share = beyond / (rows_of(above) - rows_of(below)) as f64;
                (OPTIMISM * (low + share * (high - low))).max(low)
            }
            None => low * (1.0 + MARGINAL * beyond / rows_of(below) as f64),
        })
    }

    fn fresh(&self, at: usize) -> Option<f64> {
        let cell = self.cells[at]?;
        (self.steps - cell.step < FRESH_STEPS).then_some(self.level * cell.seconds)
    }

    fn fresh_below(&self, at: usize) -> Option<(usize, f64)> {
        (0..at).rev().find_map(|i| Some((i, self.fresh(i)?)))
    }
}

fn cell(rows: usize) -> usize {
    match rows {
        0 => 0,
        1..=EXACT_ROWS => rows - 1,
        _ => {
            let power = rows.div_ceil(EXACT_ROWS).next_power_of_two().ilog2() as usize;
            (EXACT_ROWS + power - 1).min(CELLS - 1)
        }
    }
}

/// The most rows of a cell.
fn rows_of(cell: usize) -> usize {
    if cell < EXACT_ROWS { cell + 1 } else { EXACT_ROWS << (cell + 1 - EXACT_ROWS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_has_its_cell() {
        for rows in 1..20_000 {
            let at = cell(rows);
            assert!(at == CELLS - 1 || rows <= rows_of(at), "{rows} rows in cell {at}");
            assert!(at == 0 || rows > rows_of(at - 1), "{rows} rows in cell {at}");
        }
    }

    #[test]
    fn what_lies_between_is_tried_and_then_known() {
        let mut costs = DecodeCosts::default();
        assert_eq!(costs.expected(3), None);
        costs.record(1, 0.010);
        costs.record(8, 0.040);
        assert_eq!(costs.expected(1), Some(0.010));
        // Beyond: half an average row each.
        assert!((costs.expected(12).unwrap() - 0.050).abs() < 1e-9);
        // Between: a quarter below the line.
        let guess = costs.expected(5).unwrap();
        assert!((guess - 0.75 * (0.010 + 0.030 * 4.0 / 7.0)).abs() < 1e-9, "{guess}");
        costs.record(5, 0.012);
        assert_eq!(costs.expected(5), Some(0.012));
    }

    #[test]
    fn a_change_that_hits_all_sizes_keeps_them_comparable() {
        let mut costs = DecodeCosts::default();
        costs.record(1, 0.010);
        costs.record(4, 0.020);
        // Contexts grow: one row now takes twice as long, four were not seen again.
        for _ in 0..60 {
            costs.record(1, 0.020);
        }
        let ratio = costs.expected(4).unwrap() / costs.expected(1).unwrap();
        assert!((1.2..2.1).contains(&ratio), "{ratio}");
        assert!((costs.expected(1).unwrap() - 0.020).abs() < 1e-4);
    }

    #[test]
    fn one_disturbed_step_decides_nothing_for_long() {
        let mut costs = DecodeCosts::default();
        costs.record(1, 0.010);
        costs.record(2, 5.0);
        assert!(costs.expected(2).unwrap() <= 0.020 + 1e-9);
        for _ in 0..30 {
            costs.record(2, 0.011);
        }
        let (one, two) = (costs.expected(1).unwrap(), costs.expected(2).unwrap());
        assert!(two < 0.012 && two / one < 2.0, "{one} {two}");
        // And a size not used for long is tried again.
        for _ in 0..FRESH_STEPS {
            costs.record(2, 0.011);
        }
        assert_eq!(costs.expected(1), None);
    }
}
