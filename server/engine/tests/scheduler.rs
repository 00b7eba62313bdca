//! Promise: whatever is thrown at the scheduler, every sequence gets the tokens it would get alone, and every
//! block is accounted for.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pith_engine::executor::Executor;
use pith_engine::request::SamplingParams;
use pith_engine::scheduler::{Progress, Scheduler, SchedulerConfig};
use pith_engine::sequence::{Goal, Sequence, SequenceId};
use proptest::prelude::*;
use support::{FakeExecutor, Probe, alone, cursed, likelihood};

#[derive(Debug, Clone)]
enum Action {
    /// Queue a generation: prompt length, words shared with the common prefix, tokens to make, tenant.
    Generate {
        prompt: usize,
        shared: usize,
        max_tokens: usize,
        tenant: u8,
        cache: bool,
        penalty: bool,
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

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1..60usize, 0..60usize, 1..30usize, 0..2u8, any::<bool>(), any::<bool>())
            .prop_map(|(prompt, shared, max_tokens, tenant, cache, penalty)| Action::Generate { prompt, shared, max_tokens, tenant, cache, penalty }),
        1 => (2..50usize, 1..50usize, 0..50usize).prop_map(|(length, from, shared)| Action::Score { length, from, shared }),
        2 => (0..8usize).prop_map(Action::Cancel),
        1 => (0..8usize).prop_map(Action::Pause),
        4 => (1..12usize).prop_map(Action::Run),
    ]
}

/// What a sequence should come to.
enum Expected {
    Tokens { want: Vec<u32>, got: Vec<u32> },
    Failure,
    Scores { want: Vec<f32>, got: Vec<f32>, from: usize },
}

struct World {
    scheduler: Scheduler,
    executor: FakeExecutor,
    probe: Arc<Probe>,
    depth: usize,
    live: Vec<SequenceId>,
    paused: Vec<SequenceId>,
    expected: HashMap<SequenceId, Expected>,
    finished: usize,
    next: u64,
    tickets: std::collections::VecDeque<pith_engine::executor::Ticket>,
}

impl World {
    fn new(blocks: usize, depth: usize, reserve_tokens: usize) -> Self {
        let (executor, probe) = FakeExecutor::new(blocks, 4, depth);
        let config = SchedulerConfig {
            max_running: 6,
            max_step_tokens: 48,
            max_step_seconds: 0.002,
            step_stretch: 2.0,
            reserve_tokens,
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

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Generate { prompt, shared, max_tokens, tenant, cache, penalty } => {
                let tokens = self.prompt(prompt, shared);
                let max_tokens =
                    max_tokens.min(self.scheduler.longest_sequence().saturating_sub(tokens.len()));
                if max_tokens == 0 {
                    return;
                }
                let want = alone(&tokens, max_tokens, &[]);
                let sampling = SamplingParams {
                    // The fake model ignores it; the scheduler must not plan ahead of such a sequence.
                    repetition_penalty: if penalty { 1.5 } else { 1.0 },
                    ..SamplingParams::default()
                };
                let goal = Goal::Generate {
                    max_tokens,
                    held_back: Arc::from([]),
                    min_tokens: 0,
                    sampling,
                };
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

    fn add(&mut self, goal: Goal, tokens: Vec<u32>, tenant: Option<u8>, expected: Expected) {
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
    fn turn(&mut self) -> bool {
        while self.tickets.len() < self.depth {
            let Some(step) = self.scheduler.plan() else { break };
            self.tickets.push_back(self.executor.submit(step).unwrap());
        }
        let Some(ticket) = self.tickets.pop_front() else { return false };
        let outcome = self.executor.wait(ticket).unwrap();
        for progress in self.scheduler.complete(outcome) {
            let (id, done) = match progress {
                Progress::Token { id, token, .. } => {
                    let (want, got) = match self.expected.get_mut(&id) {
                        Some(Expected::Tokens { want, got }) => (want, got),
                        Some(_) => panic!("{id:?} has no token to get"),
                        None => continue,
                    };
                    got.push(token);
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
    fn finish(&mut self) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_gets_what_it_would_get_alone(
        actions in prop::collection::vec(action(), 1..60),
        blocks in 24..80usize,
        depth in 1..=2usize,
        reserve in prop_oneof![Just(0usize), Just(8), Just(512)],
    ) {
        let mut world = World::new(blocks, depth, reserve);
        world.probe.curses.store(true, Ordering::Relaxed);
        for action in &actions {
            world.act(action);
        }
        world.finish();
    }
}

fn generate(world: &mut World, tokens: Vec<u32>, max_tokens: usize) {
    let want = alone(&tokens, max_tokens, &[]);
    let goal = Goal::Generate {
        max_tokens,
        held_back: Arc::from([]),
        min_tokens: 0,
        sampling: SamplingParams::default(),
    };
    world.add(goal, tokens, Some(0), Expected::Tokens { want, got: Vec::new() });
}

#[test]
fn over_admission_preempts_the_newest_and_everyone_still_finishes() {
    // 24 blocks of 4 hold 96 tokens; three sequences grow to 60 each, and nothing is reserved.
    let mut world = World::new(24, 1, 0);
    for n in 0..3u32 {
        generate(&mut world, (0..10).map(|i| 200 * n + i).collect(), 50);
    }
    world.finish();
    assert!(world.scheduler.totals().preemptions > 0);
    assert_eq!(world.finished, 3);
}

#[test]
fn a_reserve_avoids_preemption() {
    let mut world = World::new(24, 1, 512);
    for n in 0..3u32 {
        generate(&mut world, (0..10).map(|i| 200 * n + i).collect(), 50);
    }
    world.finish();
    assert_eq!(world.scheduler.totals().preemptions, 0);
}

#[test]
fn a_prompt_found_whole_computes_one_token() {
    let mut world = World::new(64, 1, 8);
    let prompt: Vec<u32> = (0..40).collect();
    generate(&mut world, prompt.clone(), 1);
    world.finish();
    let before = world.scheduler.totals();
    generate(&mut world, prompt, 1);
    world.finish();
    let after = world.scheduler.totals();
    assert_eq!(after.prefix_hits - before.prefix_hits, 39);
    assert_eq!(after.prefill_tokens - before.prefill_tokens, 1);
}

#[test]
fn answers_are_cached_with_their_prompts() {
    let mut world = World::new(64, 1, 8);
    let prompt: Vec<u32> = (0..10).collect();
    generate(&mut world, prompt.clone(), 23);
    world.finish();
    // The next turn of the conversation: everything said so far, and a little more.
    let mut next = prompt.clone();
    next.extend(alone(&prompt, 23, &[]));
    next.extend([5, 6, 7]);
    let before = world.scheduler.totals().prefix_hits;
    generate(&mut world, next, 2);
    world.finish();
    // 32 of the 33 tokens before are in full blocks, and the last sampled one was never computed.
    assert_eq!(world.scheduler.totals().prefix_hits - before, 32);
}

#[test]
fn tenants_never_share_cached_blocks() {
    let mut world = World::new(64, 1, 8);
    let prompt: Vec<u32> = (0..40).collect();
    for tenant in 0..2u8 {
        let want = alone(&prompt, 3, &[]);
        let goal = Goal::Generate {
            max_tokens: 3,
            held_back: Arc::from([]),
            min_tokens: 0,
            sampling: SamplingParams::default(),
        };
        world.add(goal, prompt.clone(), Some(tenant), Expected::Tokens { want, got: Vec::new() });
        world.finish();
    }
    assert_eq!(world.scheduler.totals().prefix_hits, 0);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut world = World::new(1000, 1, 8);
    generate(&mut world, (0..900).map(|i| i % 700).collect(), 1);
    world.turn();
    generate(&mut world, (0..8).map(|i| i + 800).collect(), 1);
    let mut turns = 0;
    while world.finished == 0 {
        world.turn();
        turns += 1;
    }
    assert!(world.live.len() == 1 && turns <= 3, "the short one took {turns} turns");
    world.finish();
}
