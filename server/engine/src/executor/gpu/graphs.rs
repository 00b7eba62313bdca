//! Decode passes recorded once per bucket of rows and keys, and played again.
//!
//! A decode step launches some ten small kernels a layer; one by one their launches take longer than their work. A bucket's first step is
//! computed launch by launch, so that whatever is chosen by timing (the vendor's products) is chosen, its second is recorded.

use std::collections::HashMap;

use pith_kernels::device::{Device, DeviceError, Graph};

use super::shapes::Reach;

/// Buckets of rows: exact where a row more is felt, a multiple of sixteen beyond.
const SMALL: [usize; 5] = [1, 2, 4, 8, 16];
const STEP: usize = 16;
/// Most rows of a recorded pass.
const MOST_ROWS: usize = super::pack::MOST_DECODE_ROWS;
/// Fewest keys of a bucket; they double from there.
const FEWEST_KEYS: usize = 1024;

/// The bucket of a plain decode step of `rows` rows whose longest sees `keys` keys; `None` where it has too many rows.
pub(super) fn bucket(rows: usize, keys: usize, most_rows: usize) -> Option<Reach> {
    let exact = SMALL.into_iter().find(|&small| rows <= small);
    let rows = exact.unwrap_or(rows.next_multiple_of(STEP));
    let keys = keys.next_power_of_two().max(FEWEST_KEYS);
    (rows <= most_rows.min(MOST_ROWS)).then_some(Reach { rows, keys })
}

/// The recordings made so far.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    recorded: HashMap<Reach, Option<Graph>>,
}

impl Graphs {
    /// Does what `pass` queues: by itself the first time, recorded from the second on.
    pub(super) fn run(
        &mut self,
        device: &Device,
        reach: Reach,
        pass: impl Fn() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        match self.recorded.get_mut(&reach) {
            None => {
                pass()?;
                self.recorded.insert(reach, None);
                Ok(())
            }
            Some(None) => {
                let graph = Graph::record(device, pass)?;
                graph.replay()?;
                self.recorded.insert(reach, Some(graph));
                Ok(())
            }
            Some(Some(graph)) => graph.replay(),
        }
    }

    /// Passes recorded so far.
    pub(super) fn len(&self) -> usize {
        self.recorded.values().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_step_and_little_more() {
        for rows in 1..=MOST_ROWS {
            let reach = bucket(rows, 5, MOST_ROWS).expect("few enough rows");
            assert!(reach.rows >= rows && reach.rows < 2 * rows.max(8) && reach.rows < rows + STEP);
            assert_eq!(reach.keys, FEWEST_KEYS);
        }
        assert_eq!(bucket(MOST_ROWS + 1, 5, usize::MAX), None);
        assert_eq!(bucket(17, 1025, 64), Some(Reach { rows: 32, keys: 2048 }));
        assert_eq!(bucket(17, 1025, 16), None);
    }
}
