//! Files cut short and files overwritten at random: refused or read, at a bounded cost.

use pith_model::{ModelError, ModelFile};

use crate::allocation::peak_growth;
use crate::{on_disk, open, tiny};

const MUTATIONS: u64 = 10_000;
/// Beyond four times the file: the reader's chunk, the template's compiler, small tables.
const SLACK: usize = 1 << 20;

#[test]
fn no_proper_prefix_of_a_file_opens() {
    let bytes = tiny::model("llama", 1).bytes();
    assert!(open(&bytes).is_ok());
    for len in 0..bytes.len() {
        match open(&bytes[..len]) {
            Err(ModelError::Invalid(_)) => {}
            other => panic!("the first {len} bytes: {other:?}"),
        }
    }
}

#[test]
fn random_damage_costs_no_more_than_the_file() {
    let whole = tiny::model("gemma3", 1).bytes();
    let (mut opened, mut refused) = (0, 0);
    for seed in 1..=MUTATIONS {
        let bytes = damaged(&whole, &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let file = on_disk(&bytes);
        let (result, grown) = peak_growth(|| ModelFile::open(file.path()));
        assert!(grown <= 4 * bytes.len() + SLACK, "seed {seed}: {grown} for {}", bytes.len());
        match result {
            Ok(model) => {
                read_everything(&model);
                opened += 1;
            }
            Err(ModelError::Invalid(_) | ModelError::Unsupported(_)) => refused += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    // Damage to weights is harmless, damage to the header rarely: neither is the rule.
    assert!(opened > MUTATIONS / 20 && refused > MUTATIONS / 20, "{opened} {refused}");
}

/// What opened can be read: no shape that passed leads out of the file.
pub(crate) fn read_everything(model: &ModelFile) {
    for name in ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight"] {
        let tensor = model.tensor(name).unwrap();
        let mut out = vec![0; tensor.rows * tensor.row_bytes];
        model.read_rows(name, 0..tensor.rows, &mut out).unwrap();
    }
    assert_eq!(model.read_f32("output_norm.weight").unwrap().len(), model.plan().hidden);
}

/// xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// One to four changes: a bit, a byte, a number that tends to overflow, a piece cut or doubled.
pub(crate) fn damaged(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() - 8);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..at + 4].copy_from_slice(&extreme(random).to_le_bytes()[..4]),
            3 => bytes[at..at + 8].copy_from_slice(&extreme(random).to_le_bytes()),
            4 => {
                let len = random.below((bytes.len() - at).min(64));
                bytes.drain(at..at + len);
            }
            _ => {
                let len = random.below((bytes.len() - at).min(64));
                let piece = bytes[at..at + len].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn extreme(random: &mut Random) -> u64 {
    const EXTREMES: [u64; 12] = [
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        1 << 60,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
        0x7fff_ffff_ffff_ffc0,
    ];
    EXTREMES[random.below(EXTREMES.len())].wrapping_add(random.next() % 3)
}
