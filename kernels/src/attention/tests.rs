//! Every path against the oracle, on random ragged batches over shuffled blocks.

use half::bf16;
use proptest::prelude::*;

use super::{AttentionShape, BiasSpan, SequenceView, attention, attention_mass};
use crate::{Isa, KvLayer, KvType, Pool};

/// A sequence of a case: its rows and how much came before.
#[derive(Debug, Clone)]
struct Part {
    rows: usize,
    before: usize,
    bias: Vec<BiasSpan>,
}

#[derive(Debug, Clone)]
struct Case {
    kind: KvType,
    shape: AttentionShape,
    block_size: usize,
    parts: Vec<Part>,
    seed: u64,
}

fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// A case laid out in memory: every slot no sequence wrote is NaN.
struct Laid {
    case: Case,
    kv: KvLayer,
    blocks: Vec<Vec<u32>>,
    q: Vec<f32>,
    stride: usize,
    rows: usize,
}

impl Laid {
    fn new(case: Case) -> Self {
        let AttentionShape { heads, kv_heads, head_dim, .. } = case.shape;
        let needed: Vec<usize> =
            case.parts.iter().map(|p| (p.rows + p.before).div_ceil(case.block_size)).collect();
        let total: usize = needed.iter().sum::<usize>() + 1;
        let mut state = case.seed | 1;
        let mut ids: Vec<u32> = (0..total as u32).collect();
        for i in (1..total).rev() {
            ids.swap(i, ((random(&mut state) + 1.0) / 2.0 * i as f32) as usize);
        }
        let mut kv = KvLayer::new(case.kind, kv_heads, head_dim, total * case.block_size);
        kv.poison();
        let mut blocks = Vec::new();
        let pool = Pool::new(1);
        let width = kv_heads * head_dim;
        for (part, n) in case.parts.iter().zip(needed) {
            let mine = ids.split_off(ids.len() - n);
            let slot = |p: usize| {
                mine[p / case.block_size] * case.block_size as u32 + (p % case.block_size) as u32
            };
            let slots: Vec<u32> = (0..part.rows + part.before).map(slot).collect();
            // Bfloat16 holds them exactly: the oracle and AMX begin with the same numbers.
            let x: Vec<f32> = (0..slots.len() * 2 * width)
                .map(|_| bf16::from_f32(random(&mut state)).to_f32())
                .collect();
            kv.write(Isa::Scalar, &pool, &x, 2 * width, 0, width, &slots).unwrap();
            blocks.push(mine);
        }
        let rows = case.parts.iter().map(|p| p.rows).sum();
        let stride = heads * head_dim + 3;
        let scale = case.shape.scale;
        let q = (0..rows * stride)
            .map(|_| bf16::from_f32(4.0 * random(&mut state) * scale).to_f32() / scale)
            .collect();
        Self { case, kv, blocks, q, stride, rows }
    }

    fn views(&self) -> Vec<SequenceView<'_>> {
        let mut first_row = 0;
        let parts = self.case.parts.iter().zip(&self.blocks);
        parts
            .map(|(part, blocks)| {
                let view = SequenceView {
                    first_row,
                    rows: part.rows,
                    context: part.rows + part.before,
                    blocks,
                    bias: &part.bias,
                };
                first_row += part.rows;
                view
            })
            .collect()
    }

    fn compute(&self, isa: Isa, threads: usize, views: &[SequenceView<'_>]) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.rows * self.case.shape.heads * self.case.shape.head_dim];
        let Case { shape, block_size, .. } = &self.case;
        let pool = Pool::new(threads);
        attention(isa, &pool, shape, &self.kv, *block_size, &self.q, self.stride, views, &mut out)
            .unwrap();
        out
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let bias = prop::collection::vec((0u32..300, 1u32..40, -3.0f32..3.0), 0..3).prop_map(|spans| {
        let mut at = 0;
        let mut place = |(gap, len, bias): (u32, u32, f32)| {
            let start = at + gap;
            at = start + len;
            BiasSpan { start, end: at, bias }
        };
        spans.into_iter().map(&mut place).collect()
    });
    let rows = prop_oneof![4 => Just(1usize), 2 => 2usize..9, 1 => 9usize..150];
    let before = prop_oneof![Just(0usize), 0usize..100, 100usize..1500];
    let part = (rows, before, bias).prop_map(|(rows, before, bias)| Part { rows, before, bias });
    prop::collection::vec(part, 1..4)
}

fn cases() -> impl Strategy<Value = Case> {
    let heads = prop_oneof![Just((9, 3)), Just((4, 1)), Just((1, 1)), Just((5, 1)), Just((4, 2))];
    let dims = prop_oneof![Just(64usize), Just(256), Just(128), Just(40), Just(20)];
    let window = prop_oneof![2 => Just(None), 1 => (1u32..600).prop_map(Some)];
    let softcap = prop_oneof![3 => Just(None), 1 => Just(Some(5.0f32))];
    let block = prop_oneof![Just(16usize), Just(7), Just(32)];
    let kind = prop_oneof![Just(KvType::F16), Just(KvType::Int8)];
    (kind, heads, dims, window, softcap, block, parts(), any::<u64>()).prop_map(
        |(kind, (heads, kv_heads), head_dim, window, softcap, block_size, parts, seed)| {
            let scale = 1.0 / (head_dim as f32).sqrt();
            let shape = AttentionShape { heads, kv_heads, head_dim, scale, window, softcap };
            Case { kind, shape, block_size, parts, seed }
        },
    )
}

/// Values lie in -1..1, so this is relative to the largest result. Scores of up to 12 carry an
/// error of about 1e-6 into the weights. AMX rounds weights to bfloat16: each may move by 2^-8 of itself.
fn tolerance(isa: Isa) -> f32 {
    if isa == Isa::Amx { 4e-3 } else { 2e-5 }
}

/// All but the oracle.
fn fast() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|&isa| isa > Isa::Scalar)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_path_matches_the_oracle(case in cases()) {
        let laid = Laid::new(case);
        let expected = laid.compute(Isa::Scalar, 2, &laid.views());
        for isa in fast() {
            let got = laid.compute(isa, 2, &laid.views());
            for (i, (&e, &g)) in expected.iter().zip(&got).enumerate() {
                prop_assert!((e - g).abs() <= tolerance(isa), "{:?} element {}: {} for {}", isa, i, g, e);
            }
        }
    }

    #[test]
    fn neighbours_and_threads_change_no_bit(case in cases()) {
        let laid = Laid::new(case);
        let width = laid.case.shape.heads * laid.case.shape.head_dim;
        for isa in fast() {
            let together = laid.compute(isa, 3, &laid.views());
            for view in laid.views() {
                let alone = laid.compute(isa, 1, &[view]);
                let rows = view.first_row * width..(view.first_row + view.rows) * width;
                for at in rows {
                    prop_assert_eq!(alone[at].to_bits(), together[at].to_bits(), "element {}", at);
                }
            }
        }
    }

    #[test]
    fn a_bias_of_zero_changes_no_bit(case in cases()) {
        let mut laid = Laid::new(case);
        for part in &mut laid.case.parts {
            part.bias.clear();
        }
        let plain: Vec<_> = fast().map(|isa| laid.compute(isa, 2, &laid.views())).collect();
        for part in &mut laid.case.parts {
            part.bias.push(BiasSpan { start: 3, end: 900, bias: 0.0 });
        }
        for (isa, plain) in fast().zip(plain) {
            let biased = laid.compute(isa, 2, &laid.views());
            for (a, b) in plain.iter().zip(&biased) {
                prop_assert_eq!(a.to_bits(), b.to_bits(), "{:?}", isa);
            }
        }
    }

    /// A prompt in one piece, and the same prompt in two.
    #[test]
    fn chunking_changes_no_bit(case in cases(), cut in 0.0f64..1.0) {
        let laid = Laid::new(case);
        let pieces: Vec<_> = laid.views().into_iter().flat_map(|view| {
            let head = (view.rows as f64 * cut) as usize;
            let tail = view.rows - head;
            [
                SequenceView { rows: head, context: view.context - tail, ..view },
                SequenceView { first_row: view.first_row + head, rows: tail, ..view },
            ]
        }).collect();
        for isa in fast() {
            let whole = laid.compute(isa, 2, &laid.views());
            let cut = laid.compute(isa, 2, &pieces);
            for (a, b) in whole.iter().zip(&cut) {
                prop_assert_eq!(a.to_bits(), b.to_bits(), "{:?}: {} and {}", isa, a, b);
            }
        }
    }

    #[test]
    fn mass_is_a_share_of_the_softmax(mut case in cases()) {
        case.parts.truncate(1);
        case.parts[0].rows = 1;
        let laid = Laid::new(case);
        let shape = &laid.case.shape;
        let position = laid.case.parts[0].before;
        let middle = position as u32 / 2;
        let spans = [0..middle, middle..position as u32 + 1, position as u32..u32::MAX, 5..5];
        let used: Vec<usize> = (0..shape.heads).step_by(2).collect();
        let mass = |isa| {
            let mut out = [f32::NAN; 4];
            let q = &laid.q[..shape.heads * shape.head_dim];
            attention_mass(
                isa, shape, &laid.kv, laid.case.block_size, q, position, &laid.blocks[0], &used, &spans,
                &mut out,
            );
            out
        };
        let (expected, got) = (mass(Isa::Scalar), mass(Isa::detect()));
        prop_assert!((expected[0] + expected[1] - 1.0).abs() < 1e-5);
        prop_assert_eq!(expected[3], 0.0);
        for (e, g) in expected.iter().zip(got) {
            prop_assert!((e - g).abs() < 1e-5, "{} for {}", g, e);
        }
    }
}

/// A span excluded altogether leaves exactly what the other keys give.
#[test]
fn an_excluded_span_weighs_nothing() {
    let shape = AttentionShape {
        heads: 3,
        kv_heads: 1,
        head_dim: 64,
        scale: 0.125,
        window: None,
        softcap: None,
    };
    for rows in [1, 5] {
        let excluded = BiasSpan { start: 0, end: 700, bias: f32::NEG_INFINITY };
        let part = Part { rows, before: 1000, bias: vec![excluded] };
        let (kind, parts) = (KvType::F16, vec![part]);
        let laid = Laid::new(Case { kind, shape, block_size: 16, parts, seed: 3 });
        let expected = laid.compute(Isa::Scalar, 1, &laid.views());
        for isa in fast() {
            let got = laid.compute(isa, 2, &laid.views());
            for (e, g) in expected.iter().zip(&got) {
                assert!((e - g).abs() <= tolerance(isa), "{isa:?}: {g} for {e}");
            }
        }
    }
}

#[test]
fn inconsistent_views_are_refused() {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        scale: 1.0,
        window: None,
        softcap: None,
    };
    let kv = KvLayer::new(KvType::F16, 1, 8, 32);
    let refused = |view: SequenceView<'_>, q: usize| {
        let mut out = vec![0.0; 4 * 16];
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            attention(
                Isa::detect(),
                &Pool::new(1),
                &shape,
                &kv,
                16,
                &vec![0.0; q],
                16,
                &[view],
                &mut out,
            )
        }))
        .is_err()
    };
    let good = SequenceView { first_row: 0, rows: 2, context: 20, blocks: &[0, 1], bias: &[] };
    assert!(!refused(good, 32));
    assert!(refused(good, 31), "queries missing");
    assert!(refused(SequenceView { first_row: 3, ..good }, 1000), "beyond out");
    assert!(refused(SequenceView { context: 33, ..good }, 32), "blocks missing");
    assert!(refused(SequenceView { blocks: &[0, 2], ..good }, 32), "block beyond the cache");
    assert!(refused(SequenceView { rows: 4, context: 3, ..good }, 1000), "more rows than context");
}
