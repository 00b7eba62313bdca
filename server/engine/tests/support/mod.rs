//! An executor whose "model" is a hash, so that scheduling can be tested without arithmetic.
//!
//! Its KV cache remembers which token was written to each slot, and the next token is a hash of
//! everything the block table leads to. A wrong slot, a stale block, a lost copy or a block shared
//! by mistake therefore changes the tokens that come out.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pith_engine::detokenize::Vocabulary;
use pith_engine::executor::{Capabilities, Executor, ExecutorError, Ticket};
use pith_engine::request::SamplingParams;
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{Outcome, Step, StepId, TokenSource, Want, Wanted};

/// Vocabulary of the fake model.
pub(crate) const VOCAB: u32 = 1000;

/// What is observed of a fake executor from outside.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// Rows computed.
    pub(crate) rows: AtomicU64,
    /// Most rows in a step.
    pub(crate) widest: AtomicU64,
    /// Microseconds every step sleeps.
    pub(crate) sleep_us: AtomicU64,
    /// The step after which this many steps fail.
    pub(crate) fail_steps: AtomicU64,
    /// The next step panics.
    pub(crate) panic_steps: AtomicU64,
    /// The device is gone; steps fail until it is revived.
    pub(crate) lost: AtomicBool,
    /// Looks for the lost device that are in vain before one brings it back.
    pub(crate) vain_revivals: AtomicU64,
    /// Rows of a [`cursed`] context come to no number.
    pub(crate) curses: AtomicBool,
    /// The model repeats itself ([`echo_token`]), and rows cost next to nothing.
    pub(crate) echoes: AtomicBool,
}

/// See the module.
pub(crate) struct FakeExecutor {
    capabilities: Capabilities,
    slots: Vec<Option<(u32, u32)>>,
    queue: Vec<Step>,
    sampled: Vec<(u32, u32)>,
    last: Option<StepId>,
    probe: Arc<Probe>,
}

impl FakeExecutor {
    /// `blocks` blocks of `block_size` tokens, `depth` steps in flight.
    pub(crate) fn new(blocks: usize, block_size: usize, depth: usize) -> (Self, Arc<Probe>) {
        let probe = Arc::new(Probe::default());
        let capabilities = Capabilities {
            block_size,
            blocks,
            depth,
            max_rows: 64,
            max_wants: 64,
            vocab: VOCAB as usize,
            max_context: 4096,
            kv_bytes: 0,
            kv_type: "f16",
            name: "fake".to_owned(),
        };
        let slots = vec![None; blocks * block_size];
        let fake = Self {
            capabilities,
            slots,
            queue: Vec::new(),
            sampled: Vec::new(),
            last: None,
            probe: Arc::clone(&probe),
        };
        (fake, probe)
    }

    fn compute(&mut self, step: &Step) -> Vec<Wanted> {
        let size = self.capabilities.block_size as u32;
        assert!(
            step.tokens.len() <= self.capabilities.max_rows,
            "a step of {} rows",
            step.tokens.len()
        );
        assert!(step.wants.len() <= self.capabilities.max_wants);
        for copy in &step.copies {
            for offset in 0..size {
                self.slots[(copy.to * size + offset) as usize] =
                    self.slots[(copy.from * size + offset) as usize];
            }
        }
        let mut context_of_row = Vec::new();
        let mut written = std::collections::HashSet::new();
        for sequence in &step.sequences {
            assert_eq!(
                sequence.first_row as usize,
                context_of_row.len(),
                "sequences cover the rows in order"
            );
            for r in 0..sequence.rows {
                let row = (sequence.first_row + r) as usize;
                let position = sequence.context - sequence.rows + r;
                assert_eq!(step.positions[row], position);
                let slot = step.slots[row];
                assert_eq!(
                    slot,
                    sequence.blocks[(position / size) as usize] * size + position % size
                );
                assert!(written.insert(slot), "two rows write slot {slot}");
                let token = match step.tokens[row] {
                    TokenSource::Literal(token) => token,
                    TokenSource::InFlight { row } => {
                        self.sampled
                            .iter()
                            .find(|(r, _)| *r == row)
                            .expect("a row of the step before")
                            .1
                    }
                };
                self.slots[slot as usize] = Some((position, token));
                context_of_row.push((position, Arc::clone(&sequence.blocks)));
            }
        }
        let mut wanted = Vec::new();
        let mut sampled = Vec::new();
        for (row, want) in &step.wants {
            let (position, blocks) = &context_of_row[*row as usize];
            let context: Vec<u32> = (0..=*position)
                .map(|p| {
                    let slot = blocks[(p / size) as usize] * size + p % size;
                    let (written_for, token) =
                        self.slots[slot as usize].expect("reads no slot never written");
                    assert_eq!(written_for, p, "slot {slot} holds another position");
                    token
                })
                .collect();
            let failed = self.probe.curses.load(Ordering::Relaxed) && cursed(&context);
            wanted.push(match want {
                Want::Sample(_) if failed => {
                    sampled.push((*row, 0));
                    Wanted::Failed("no number".to_owned())
                }
                Want::Likelihood(_) if failed => Wanted::Failed("no number".to_owned()),
                Want::Sample(spec) => {
                    let id = match self.probe.echoes.load(Ordering::Relaxed) {
                        true => echo_token(&context, spec),
                        false => next_token(&context, spec.banned.as_ref()),
                    };
                    sampled.push((*row, id));
                    Wanted::Token { id, logprob: -1.0 }
                }
                Want::Likelihood(targets) => {
                    Wanted::Likelihood(targets.iter().map(|&t| likelihood(&context, t)).collect())
                }
                other => panic!("the scheduler never asks for {other:?}"),
            });
        }
        self.sampled = sampled;
        wanted
    }
}

/// Whether the fake model, if it has such, comes to no number over this context.
pub(crate) fn cursed(context: &[u32]) -> bool {
    context[0].is_multiple_of(8)
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0100_0000_01b3)
}

fn hash(context: &[u32]) -> u64 {
    context.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &token| mix(hash, u64::from(token)))
}

fn token(mut hash: u64, banned: &[u32]) -> u32 {
    loop {
        let token = ((hash >> 20) % u64::from(VOCAB)) as u32;
        if !banned.contains(&token) {
            return token;
        }
        hash = mix(hash, 0) ^ 1;
    }
}

/// The fake model's next token.
pub(crate) fn next_token(context: &[u32], banned: &[u32]) -> u32 {
    token(hash(context), banned)
}

/// The next token of a fake model that repeats itself: seven times in eight it says what it said a while ago. Which
/// times these are depends on the whole context and on all that a [`SampleSpec`] says of the token to sample.
pub(crate) fn echo_token(context: &[u32], spec: &SampleSpec) -> u32 {
    let mut hash = hash(context);
    if spec.temperature > 0.0 {
        hash = mix(mix(hash, spec.seed), spec.draw);
    }
    for &(token, count) in spec.seen.iter() {
        hash = mix(mix(hash, u64::from(token)), u64::from(count));
    }
    let period = 3 + context[0] as usize % 9;
    match context.len().checked_sub(period) {
        Some(at) if !(hash >> 40).is_multiple_of(8) && !spec.banned.contains(&context[at]) => {
            context[at]
        }
        _ => token(hash, &spec.banned),
    }
}

/// What the model that repeats itself says after `prompt`, alone, with every token sampled as `sampling` and
/// `min_tokens` without those `held_back` ask.
pub(crate) fn echoes(
    prompt: &[u32],
    max_tokens: usize,
    sampling: &SamplingParams,
    held_back: &[u32],
    min_tokens: usize,
) -> Vec<u32> {
    let penalised = sampling.repetition_penalty != 1.0;
    let mut context = prompt.to_vec();
    for draw in 0..max_tokens {
        let mut seen = std::collections::BTreeMap::new();
        if penalised {
            seen.extend(prompt.iter().map(|&token| (token, 0)));
            context[prompt.len()..].iter().for_each(|&t| *seen.entry(t).or_insert(0) += 1);
        }
        let spec = SampleSpec {
            temperature: sampling.temperature,
            repetition_penalty: sampling.repetition_penalty,
            seen: seen.into_iter().collect(),
            banned: if draw < min_tokens { held_back.into() } else { Arc::new([]) },
            seed: sampling.seed.unwrap_or(0),
            draw: draw as u64,
            ..SampleSpec::greedy()
        };
        context.push(echo_token(&context, &spec));
    }
    context.split_off(prompt.len())
}

/// The fake model's ln-probability of `token` after `context`.
pub(crate) fn likelihood(context: &[u32], token: u32) -> f32 {
    -(f64::from(next_token(context, &[]) ^ token) / 100.0) as f32
}

/// What the fake model says after `prompt`, alone and unhurried.
pub(crate) fn alone(prompt: &[u32], max_tokens: usize, ends: &[u32]) -> Vec<u32> {
    let mut context = prompt.to_vec();
    while context.len() < prompt.len() + max_tokens {
        let token = next_token(&context, &[]);
        context.push(token);
        if ends.contains(&token) {
            break;
        }
    }
    context.split_off(prompt.len())
}

impl Executor for FakeExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, step: Step) -> Result<Ticket, ExecutorError> {
        assert!(self.last.is_none_or(|last| step.id > last), "steps are numbered upwards");
        assert!(self.queue.len() < self.capabilities.depth, "more steps in flight than the depth");
        for ahead in &self.queue {
            let twice = step.slots.iter().find(|slot| ahead.slots.contains(slot));
            assert_eq!(twice, None, "a slot that a step in flight writes is given away");
        }
        self.last = Some(step.id);
        let id = step.id;
        self.queue.push(step);
        Ok(Ticket(id))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError> {
        let step = self.queue.remove(0);
        assert_eq!(step.id, ticket.0);
        std::thread::sleep(std::time::Duration::from_micros(
            self.probe.sleep_us.load(Ordering::Relaxed),
        ));
        if take_one(&self.probe.panic_steps) {
            panic!("planted panic");
        }
        if self.probe.lost.load(Ordering::Relaxed) {
            return Err(ExecutorError::Lost("planted loss".to_owned()));
        }
        if take_one(&self.probe.fail_steps) {
            self.slots.fill(None);
            return Err(ExecutorError::Failed("planted failure".to_owned()));
        }
        self.probe.rows.fetch_add(step.tokens.len() as u64, Ordering::Relaxed);
        self.probe.widest.fetch_max(step.tokens.len() as u64, Ordering::Relaxed);
        let wanted = self.compute(&step);
        let rows = step.tokens.len() as f64;
        let seconds = match self.probe.echoes.load(Ordering::Relaxed) {
            true => 1e-3 + 1e-6 * rows,
            false => 1e-4 * rows,
        };
        Ok(Outcome { id: step.id, wanted, seconds })
    }

    fn revive(&mut self) -> Result<(), ExecutorError> {
        if take_one(&self.probe.vain_revivals) {
            return Err(ExecutorError::Lost("still gone".to_owned()));
        }
        self.slots.fill(None);
        self.queue.clear();
        self.probe.lost.store(false, Ordering::Relaxed);
        Ok(())
    }
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

/// A vocabulary in which token t is shown as `<t>` and token 7 ends.
pub(crate) struct FakeVocabulary(Vec<Vec<u8>>);

impl Default for FakeVocabulary {
    fn default() -> Self {
        Self((0..VOCAB).map(|t| format!("<{t}>").into_bytes()).collect())
    }
}

impl Vocabulary for FakeVocabulary {
    fn bytes(&self, token: u32) -> &[u8] {
        &self.0[token as usize]
    }

    fn end_tokens(&self) -> &[u32] {
        &[7]
    }
}
