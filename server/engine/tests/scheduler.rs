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
use support::{FakeExecutor, Probe, alone, cursed, echoes, likelihood};

#[derive(Debug, Clone)]
enum Action {
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
enum Style {
    Greedy,
    Seeded,
    Penalised,
}

fn action() -> impl Strategy<Value = Action> {
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
        Self::drafting(blocks, depth, reserve_tokens, 0)
    }

    fn drafting(
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

    fn act(&mut self, action: &Action) {
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
        drafts in prop_oneof![Just(0usize), 1..=8usize],
        echoes in any::<bool>(),
    ) {
        let mut world = World::drafting(blocks, depth, reserve, drafts);
        world.probe.curses.store(true, Ordering::Relaxed);
        world.probe.echoes.store(echoes, Ordering::Relaxed);
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

/// Sequences that repeat themselves, generated side by side.
fn echoing(streams: u32, depth: usize, max_draft_tokens: usize) -> World {
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

#[test]
fn a_draft_that_is_right_saves_steps_and_changes_no_token() {
    for depth in 1..=2 {
        for streams in [1, 4] {
            let steps = |max_draft_tokens| {
                let mut world = echoing(streams, depth, max_draft_tokens);
                world.finish();
                world.scheduler.totals()
            };
            let (plain, drafted) = (steps(0), steps(6));
            assert_eq!((plain.draft_tokens, plain.accepted_draft_tokens), (0, 0));
            assert!(drafted.draft_tokens > 100, "{drafted:?}");
            // Seven of eight tokens repeat, so that a rejected one is rare but certain to come.
            let share = drafted.accepted_draft_tokens as f64 / drafted.draft_tokens as f64;
            assert!((0.5..0.95).contains(&share), "{drafted:?}");
            // Every accepted token is a step less for its sequence, but the last step of all is everyone's.
            assert!(drafted.steps * 10 < plain.steps * 9, "{} of {}", drafted.steps, plain.steps);
            if (depth, streams) == (1, 1) {
                assert_eq!(drafted.steps + drafted.accepted_draft_tokens, plain.steps);
            }
        }
    }
}

#[test]
fn what_never_repeats_itself_is_not_drafted() {
    let mut world = World::drafting(200, 1, 512, 6);
    generate(&mut world, (0..20).collect(), 300);
    world.finish();
    assert_eq!(world.scheduler.totals().draft_tokens, 0);
}

#[test]
fn where_rows_are_dear_nothing_is_drafted() {
    // As `echoing`, but every row takes as long as the first.
    let mut world = echoing(1, 1, 6);
    let mut plain = 0;
    while !world.live.is_empty() {
        let Some(step) = world.scheduler.plan() else { break };
        let (rows, ticket) = (step.tokens.len(), world.executor.submit(step).unwrap());
        let mut outcome = world.executor.wait(ticket).unwrap();
        outcome.seconds = 1e-3 * rows as f64;
        plain += 1;
        for progress in world.scheduler.complete(outcome) {
            let Progress::Tokens { id, .. } = progress else { panic!("{progress:?}") };
            if world.scheduler.get(id).is_some_and(|s| s.tokens.len() == s.longest()) {
                world.scheduler.remove(id).unwrap();
                world.live.clear();
            }
        }
    }
    // A few are tried, for nobody knew; what they cost is known then.
    let totals = world.scheduler.totals();
    assert!(totals.draft_tokens <= 24, "{totals:?} in {plain} steps");
}

#[test]
fn only_accepted_tokens_are_published() {
    // Cut off after any number of steps, also right after a draft was rejected, a sequence leaves blocks that serve
    // whoever goes on from there.
    let (mut rejected, mut found) = (0, 0);
    for turns in 2..90 {
        let mut world = echoing(1, 1, 6);
        for _ in 0..turns {
            world.turn();
        }
        let Some(&id) = world.live.first() else { break };
        let mut next = world.scheduler.get(id).unwrap().tokens.clone();
        world.act(&Action::Cancel(0));
        let before = world.scheduler.totals();
        rejected += before.draft_tokens - before.accepted_draft_tokens;
        // Of what was said, all but the last token was computed.
        let computed = (next.len() - 1) / 4 * 4;
        next.push(999);
        let sampling = SamplingParams::default();
        let want = echoes(&next, 20, &sampling, &[], 0);
        let held_back = Arc::from([]);
        let goal = Goal::Generate { max_tokens: 20, held_back, min_tokens: 0, sampling };
        world.add(goal, next, Some(0), Expected::Tokens { want, got: Vec::new() });
        world.finish();
        assert_eq!(world.scheduler.totals().prefix_hits, computed as u64);
        found += computed;
    }
    assert!(rejected > 50 && found > 1000, "{rejected} rejected, {found} found");
}
