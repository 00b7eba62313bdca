//! Promise: whatever is thrown at the scheduler, every sequence gets the tokens it would get alone, and every
//! block is accounted for.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod scheduler_world;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pith_engine::executor::Executor;
use pith_engine::request::SamplingParams;
use pith_engine::scheduler::Progress;
use pith_engine::sequence::Goal;
use proptest::prelude::*;
use scheduler_world::{Action, Expected, World, action, echoing, generate};
use support::{alone, echoes};

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
fn what_is_forgotten_is_neither_found_nor_left_behind() {
    let mut world = World::new(64, 1, 8);
    let prompt: Vec<u32> = (0..40).collect();
    let add = |world: &mut World, tenant: u8, max_tokens: u32| {
        let want = alone(&prompt, max_tokens as usize, &[]);
        let goal = Goal::Generate {
            max_tokens: max_tokens as usize,
            held_back: Arc::from([]),
            min_tokens: 0,
            sampling: SamplingParams::default(),
        };
        world.add(goal, prompt.clone(), Some(tenant), Expected::Tokens { want, got: Vec::new() });
    };
    let hits = |world: &World| world.scheduler.totals().prefix_hits;
    for tenant in 0..2 {
        add(&mut world, tenant, 3);
    }
    world.finish();
    let cached = world.scheduler.blocks().cached;
    world.scheduler.forget("0");
    world.scheduler.check().unwrap();
    assert_eq!(world.scheduler.blocks().cached, cached / 2);
    add(&mut world, 0, 3);
    world.finish();
    assert_eq!(hits(&world), 0);
    // The other tenant still has its own.
    add(&mut world, 1, 3);
    world.finish();
    assert_eq!(hits(&world), 39);

    // Forgotten while it runs and another waits: they finish, and leave nothing.
    world.scheduler.forget("0");
    world.scheduler.forget("1");
    assert_eq!(world.scheduler.blocks().cached, 0);
    add(&mut world, 0, 20);
    for _ in 0..8 {
        world.turn();
    }
    add(&mut world, 0, 3);
    world.scheduler.forget("0");
    world.scheduler.check().unwrap();
    world.finish();
    assert_eq!((world.scheduler.blocks().cached, hits(&world)), (0, 39));
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
