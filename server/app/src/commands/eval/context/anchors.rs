//! Published figures to print beside ours: what plain retrieval reaches on the full sets.
//!
//! Measured with an int8 MiniLM, BM25 (k1 1.2, b 0.75) and first-fail fill. Sets and token counts differ from those
//! measured here, so they say where figures should lie, not who is better.

use super::dataset::Kind;

/// A line of figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    pub(super) name: &'static str,
    /// Budget and share, both in percent where budgets are shares.
    pub(super) shares: &'static [(f64, f64)],
}

const XQUAD: [Anchor; 4] = [
    Anchor {
        name: "random",
        shares: &[
            (64.0, 0.0),
            (128.0, 0.0),
            (256.0, 0.8),
            (512.0, 1.4),
            (1024.0, 2.8),
            (2048.0, 5.1),
        ],
    },
    Anchor {
        name: "BM25",
        shares: &[
            (64.0, 71.3),
            (128.0, 86.6),
            (256.0, 91.7),
            (512.0, 93.9),
            (1024.0, 95.4),
            (2048.0, 95.8),
        ],
    },
    Anchor {
        name: "MiniLM",
        shares: &[
            (64.0, 69.2),
            (128.0, 87.9),
            (256.0, 92.4),
            (512.0, 95.6),
            (1024.0, 97.4),
            (2048.0, 98.4),
        ],
    },
    Anchor {
        name: "RRF",
        shares: &[
            (64.0, 72.9),
            (128.0, 89.7),
            (256.0, 94.2),
            (512.0, 96.7),
            (1024.0, 97.8),
            (2048.0, 98.7),
        ],
    },
];

const NQ: [Anchor; 5] = [
    Anchor { name: "random", shares: &[(5.0, 6.0), (10.0, 13.2), (25.0, 32.8), (50.0, 56.5)] },
    Anchor { name: "lead", shares: &[(5.0, 5.0), (10.0, 11.2), (25.0, 27.0), (50.0, 50.8)] },
    Anchor { name: "BM25", shares: &[(5.0, 65.5), (10.0, 78.0), (25.0, 88.2), (50.0, 94.0)] },
    Anchor { name: "MiniLM", shares: &[(5.0, 85.8), (10.0, 91.8), (25.0, 96.0), (50.0, 98.0)] },
    Anchor { name: "RRF", shares: &[(5.0, 79.0), (10.0, 90.0), (25.0, 96.5), (50.0, 97.5)] },
];

const QMSUM: [Anchor; 7] = [
    Anchor { name: "random", shares: &[(5.0, 4.2), (10.0, 10.2), (20.0, 20.0), (30.0, 29.4)] },
    Anchor { name: "lead", shares: &[(5.0, 3.7), (10.0, 9.9), (20.0, 26.2), (30.0, 37.7)] },
    Anchor { name: "BM25", shares: &[(5.0, 21.7), (10.0, 31.9), (20.0, 44.6), (30.0, 53.0)] },
    Anchor { name: "MiniLM", shares: &[(5.0, 22.9), (10.0, 32.6), (20.0, 45.6), (30.0, 55.7)] },
    Anchor { name: "RRF", shares: &[(5.0, 24.9), (10.0, 34.7), (20.0, 47.7), (30.0, 56.4)] },
    Anchor {
        name: "z-sum, width 10",
        shares: &[(5.0, 34.2), (10.0, 49.1), (20.0, 62.9), (30.0, 71.6)],
    },
    Anchor {
        name: "z-sum, width 40",
        shares: &[(5.0, 29.8), (10.0, 45.7), (20.0, 65.9), (30.0, 75.5)],
    },
];

/// What is known of a data set, and on what it was measured.
pub(super) fn of(kind: Kind) -> Option<(&'static str, &'static [Anchor])> {
    match kind {
        Kind::Xquad => Some(("all of XQuAD English, 1,190 questions, 38,651 tokens", &XQUAD)),
        Kind::Nq => Some(("400 questions, 20 documents, 2,035 tokens", &NQ)),
        Kind::Qmsum => Some(("QMSum test, 244 queries; smoothing tuned on it", &QMSUM)),
        Kind::Own => None,
    }
}
