//! A scheduler over the fake executor, with what every sequence in it should come to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pith_engine::executor::Executor;
use pith_engine::request::SamplingParams;
use pith_engine::scheduler::{Progress, Scheduler, SchedulerConfig};
use pith_engine::sequence::{Goal, Sequence, SequenceId};
use proptest::prelude::*;

use crate::support::{FakeExecutor, Probe, alone, cursed, echoes, likelihood};

/// What may happen to a [`World`].
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Queue a generation: prompt length, words shared with the common prefix, tokens to make, tenant.
    Generate {
        prompt: usize,
        shared: usize,
        max_tokens: usize,
        tenant: u8,
        cache: bool,
        style: Style,
    },
    /// Queue a score.
    Score { length: usize, from: usize, shared: usize },
    /// Remove the n-th live sequence.
    Cancel(usize),
    /// Pause or resume the n-th live sequence.
    Pause(usize),
    /// Run some steps.
    Run(usize),
}

/// How a generation is sampled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Greedy,
    Seeded,
    Penalised,
}

/// Any of them, generations and steps most often.
pub(crate) fn action() -> impl Strategy<Value = Action> {
    let style = prop_oneof![Just(Style::Greedy), Just(Style::Seeded), Just(Style::Penalised)];
    prop_oneof![
        4 => (1..60usize, 0..60usize, 1..60usize, 0..2u8, any::<bool>(), style)
            .prop_map(|(prompt, shared, max_tokens, tenant, cache, style)| Action::Generate { prompt, shared, max_tokens, tenant, cache, style }),
        1 => (2..50usize, 1..50usize, 0..50usize).prop_map(|(length, from, shared)| Action::Score { length, from, shared }),
        2 => (0..8usize).prop_map(Action::Cancel),
        1 => (0..8usize).prop_map(Action::Pause),
        4 => (1..12usize).prop_map(Action::Run),
    ]
}

/// What a sequence should come to.
pub(crate) enum Expected {
    Tokens { want: Vec<u32>, got: Vec<u32> },
    Failure,
    Scores { want: Vec<f32>, got: Vec<f32>, from: usize },
}

/// See the module.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) executor: FakeExecutor,
    pub(crate) probe: Arc<Probe>,
    pub(crate) depth: usize,
    pub(crate) live: Vec<SequenceId>,
    pub(crate) paused: Vec<SequenceId>,
    pub(crate) expected: HashMap<SequenceId, Expected>,
    pub(crate) finished: usize,
    pub(crate) next: u64,
    pub(crate) tickets: std::collections::VecDeque<pith_engine::executor::Ticket>,
}

impl World {
    /// `blocks` blocks of 4 tokens, `depth` steps in flight, nothing drafted.
    pub(crate) fn new(blocks: usize, depth: usize, reserve_tokens: usize) -> Self {
        Self::drafting(blocks, depth, reserve_tokens, 0)
    }

    pub(crate) fn drafting(
        blocks: usize,
        depth: usize,
        reserve_tokens: usize,
        max_draft_tokens: usize,
    ) -> Self {
        let (executor, probe) = FakeExecutor::new(blocks, 4, depth);
        let config = SchedulerConfig {
            max_running: 6,
            max_step_tokens: 48,
            max_step_seconds: 0.002,
            step_stretch: 2.0,
            reserve_tokens,
            max_draft_tokens,
        };
        let scheduler = Scheduler::new(executor.capabilities(), config);
        Self {
            scheduler,
            executor,
            probe,
            depth,
            live: Vec::new(),
            paused: Vec::new(),
            expected: HashMap::new(),
            finished: 0,
            next: 0,
            tickets: std::collections::VecDeque::new(),
        }
    }

    fn prompt(&self, length: usize, shared: usize) -> Vec<u32> {
        let own = 100 + (self.next % 400) as u32;
        (0..length).map(|i| if i < shared { i as u32 % 90 } else { own + i as u32 }).collect()
    }

    pub(crate) fn act(&mut self, action: &Action) {
        match *action {
            Action::Generate { prompt, shared, max_tokens, tenant, cache, style } => {
                let tokens = self.prompt(prompt, shared);
                let max_tokens =
                    max_tokens.min(self.scheduler.longest_sequence().saturating_sub(tokens.len()));
                if max_tokens == 0 {
                    return;
                }
                // The model that never repeats itself ignores it; the scheduler must not plan ahead of penalties.
                let sampling = match style {
                    Style::Greedy => SamplingParams::default(),
                    Style::Seeded => SamplingParams {
                        temperature: 1.0,
                        seed: Some(self.next),
                        ..SamplingParams::default()
                    },
                    Style::Penalised => {
                        SamplingParams { repetition_penalty: 1.5, ..SamplingParams::default() }
                    }
                };
                let repeats = self.probe.echoes.load(Ordering::Relaxed);
                let (held_back, min_tokens) =
                    if repeats { (tokens.clone(), max_tokens / 4) } else { (Vec::new(), 0) };
                let want = match repeats {
                    true => echoes(&tokens, max_tokens, &sampling, &held_back, min_tokens),
                    false => alone(&tokens, max_tokens, &[]),
                };
                let held_back = Arc::from(held_back);
                let goal = Goal::Generate { max_tokens, held_back, min_tokens, sampling };
                self.add(
                    goal,
                    tokens,
                    cache.then_some(tenant),
                    Expected::Tokens { want, got: Vec::new() },
                );
            }
            Action::Score { length, from, shared } => {
                let tokens = self.prompt(length, shared);
                let from = from.min(length - 1);
                let want = (from..length).map(|i| likelihood(&tokens[..i], tokens[i])).collect();
                self.add(
                    Goal::Score { from },
                    tokens,
                    Some(0),
                    Expected::Scores { want, got: Vec::new(), from },
                );
            }
            Action::Cancel(n) if !self.live.is_empty() => {
                let id = self.live.remove(n % self.live.len());
                self.expected.remove(&id);
                self.scheduler.remove(id).unwrap();
            }
            Action::Pause(n) if !self.live.is_empty() => {
                let id = self.live[n % self.live.len()];
                let pause = !self.paused.contains(&id);
                self.scheduler.set_paused(id, pause);
                if pause && self.scheduler.get(id).is_some() {
                    self.paused.push(id);
                } else {
                    self.paused.retain(|&p| p != id);
                }
            }
            Action::Run(steps) => {
                for _ in 0..steps {
                    self.turn();
                }
            }
            Action::Cancel(_) | Action::Pause(_) => {}
        }
        self.scheduler.check().unwrap();
        let counts = self.scheduler.blocks();
        assert_eq!(counts.free + counts.cached + counts.used, self.executor.capabilities().blocks);
    }

    pub(crate) fn add(
        &mut self,
        goal: Goal,
        tokens: Vec<u32>,
        tenant: Option<u8>,
        expected: Expected,
    ) {
        let curses = self.probe.curses.load(Ordering::Relaxed);
        let expected = if curses && cursed(&tokens) { Expected::Failure } else { expected };
        let id = SequenceId(self.next);
        self.next += 1;
        let root = tenant.map(|t| self.scheduler.root(&t.to_string()));
        self.scheduler.add(Sequence::new(id, goal, root, tokens));
        self.live.push(id);
        self.expected.insert(id, expected);
    }

    /// One turn of the step loop; false if nothing could be done.
    pub(crate) fn turn(&mut self) -> bool {
        while self.tickets.len() < self.depth {
            let Some(step) = self.scheduler.plan() else { break };
            self.tickets.push_back(self.executor.submit(step).unwrap());
        }
        let Some(ticket) = self.tickets.pop_front() else { return false };
        let outcome = self.executor.wait(ticket).unwrap();
        for progress in self.scheduler.complete(outcome) {
            let (id, done) = match progress {
                Progress::Tokens { id, tokens } => {
                    let (want, got) = match self.expected.get_mut(&id) {
                        Some(Expected::Tokens { want, got }) => (want, got),
                        Some(_) => panic!("{id:?} has no token to get"),
                        None => continue,
                    };
                    assert!(!tokens.is_empty());
                    got.extend(tokens.iter().map(|token| token.id));
                    assert!(got.len() <= want.len(), "{id:?} got more than it asked for");
                    assert_eq!(got[..], want[..got.len()], "{id:?} got other tokens than alone");
                    (id, got.len() == want.len())
                }
                Progress::Failed { id, .. } => {
                    if let Some(expected) = self.expected.get(&id) {
                        assert!(matches!(expected, Expected::Failure), "{id:?} failed");
                    }
                    (id, self.expected.contains_key(&id))
                }
                Progress::Scored { id, first, logprobs, done } => {
                    let Some(Expected::Scores { want, got, from }) = self.expected.get_mut(&id)
                    else {
                        continue;
                    };
                    got.truncate(first - *from);
                    got.extend(logprobs);
                    assert_eq!(got[..], want[..got.len()]);
                    assert!(
                        !done || got.len() == want.len(),
                        "scored {} of {}",
                        got.len(),
                        want.len()
                    );
                    (id, done)
                }
            };
            if done {
                self.scheduler.remove(id).unwrap();
                self.live.retain(|&l| l != id);
                self.expected.remove(&id);
                self.finished += 1;
            }
        }
        true
    }

    /// Lets everything finish.
    pub(crate) fn finish(&mut self) {
        for id in std::mem::take(&mut self.paused) {
            self.scheduler.set_paused(id, false);
        }
        for turn in 0.. {
            if self.live.is_empty() && self.tickets.is_empty() {
                break;
            }
            assert!(turn < 20_000, "{} sequences never finish", self.live.len());
            assert!(self.turn() || self.live.is_empty(), "stuck with {} live", self.live.len());
        }
        self.scheduler.check().unwrap();
        assert_eq!(self.scheduler.blocks().used, 0);
    }
}

/// Queues a greedy generation.
pub(crate) fn generate(world: &mut World, tokens: Vec<u32>, max_tokens: usize) {
    let want = alone(&tokens, max_tokens, &[]);
    let goal = Goal::Generate {
        max_tokens,
        held_back: Arc::from([]),
        min_tokens: 0,
        sampling: SamplingParams::default(),
    };
    world.add(goal, tokens, Some(0), Expected::Tokens { want, got: Vec::new() });
}

/// Sequences that repeat themselves, generated side by side.
pub(crate) fn echoing(streams: u32, depth: usize, max_draft_tokens: usize) -> World {
    let mut world = World::drafting(400, depth, 512, max_draft_tokens);
    world.probe.echoes.store(true, Ordering::Relaxed);
    for n in 0..streams {
        let prompt: Vec<u32> = (0..12).map(|i| 1 + 200 * n + i).collect();
        let sampling = SamplingParams::default();
        let want = echoes(&prompt, 150, &sampling, &[], 0);
        let held_back = Arc::from([]);
        let goal = Goal::Generate { max_tokens: 150, held_back, min_tokens: 0, sampling };
        world.add(goal, prompt, Some(0), Expected::Tokens { want, got: Vec::new() });
    }
    world
}
