//! How often what a source said next was right, by how long it had been right before.

/// Lengths of agreement told apart: 2, 3 to 4, 5 to 8, and so on in powers of two; the last is open.
const CLASSES: usize = 6;
/// Weight of what others have shown, in tokens of one's own: few, for answers that quote and answers that invent
/// stand side by side.
const PRIOR_TOKENS: f64 = 2.0;
/// What is believed before anything was seen.
const UNSEEN: f64 = 0.5;
/// Weight that a token seen loses with each later one: about the last 10 count, or the last 500.
const RECENT: f64 = 0.9;
const LONG: f64 = 0.998;

/// Shares of right tokens, the newest weighing most.
#[derive(Debug, Clone)]
pub struct Acceptance {
    keep: f64,
    classes: [Seen; CLASSES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    right: f64,
    all: f64,
}

impl Acceptance {
    /// Of one sequence, whose habits change from passage to passage.
    pub fn recent() -> Self {
        Self { keep: RECENT, classes: Default::default() }
    }

    /// Of all sequences together: what a new one is taken for.
    pub fn of_everyone() -> Self {
        Self { keep: LONG, classes: Default::default() }
    }

    /// Takes in a token that a source which had agreed for `length` tokens foretold, rightly or not.
    pub fn learn(&mut self, length: usize, right: bool) {
        let seen = &mut self.classes[class(length)];
        seen.right = seen.right * self.keep + f64::from(u8::from(right));
        seen.all = seen.all * self.keep + 1.0;
    }

    /// The chance that a source which has agreed for `length` tokens is right about the next, `prior` being what is
    /// believed without this.
    pub fn chance(&self, length: usize, prior: f64) -> f64 {
        let Seen { right, all } = self.classes[class(length)];
        (right + PRIOR_TOKENS * prior) / (all + PRIOR_TOKENS)
    }

    /// As [`Self::chance`], with nothing else to go by.
    pub fn alone(&self, length: usize) -> f64 {
        self.chance(length, UNSEEN)
    }
}

fn class(length: usize) -> usize {
    (length.max(2) - 1).ilog2().min(CLASSES as u32 - 1) as usize
}
