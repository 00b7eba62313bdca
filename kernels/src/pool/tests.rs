//! Each index once, panics named, nothing left hanging, jobs from several callers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Pool;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_index_runs_once(threads in 1usize..5, sizes in prop::collection::vec(0usize..200, 1..20)) {
        let pool = Pool::new(threads);
        for tasks in sizes {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, |i| _ = counts[i].fetch_add(1, Ordering::Relaxed)).unwrap();
            prop_assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn chunks_cover_the_data(threads in 1usize..4, len in 0usize..500, chunk in 1usize..60) {
        let mut data = vec![usize::MAX; len];
        Pool::new(threads).chunks(&mut data, chunk, |i, part| part.fill(i)).unwrap();
        prop_assert!(data.iter().enumerate().all(|(at, &i)| i == at / chunk));
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_pool(threads in 1usize..5, tasks in 1usize..60, bad in 0usize..60) {
        let pool = Pool::new(threads);
        let bad = bad % tasks;
        let error = pool.run(tasks, |i| assert!(i != bad, "task {i} is bad")).unwrap_err();
        prop_assert!(error.to_string().contains(&format!("task {bad} is bad")), "{error}");
        let count = AtomicUsize::new(0);
        pool.run(tasks, |_| _ = count.fetch_add(1, Ordering::Relaxed)).unwrap();
        prop_assert_eq!(count.into_inner(), tasks);
    }
}

#[test]
fn a_panic_without_text_is_reported_too() {
    let error = Pool::new(2).run(3, |_| std::panic::panic_any(7u8)).unwrap_err();
    assert_eq!(error.0, "a value that is no text");
}

#[test]
fn a_job_inside_a_task_runs_in_place() {
    let pool = Pool::new(2);
    let count = AtomicUsize::new(0);
    let inner = |_| _ = count.fetch_add(1, Ordering::Relaxed);
    pool.run(4, |_| pool.run(5, inner).unwrap()).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 20);
    // The panic of an inner job is that job's result; the outer one decides what becomes of it.
    pool.run(4, |_| assert!(pool.run(2, |_| panic!("inner")).is_err())).unwrap();
}

#[test]
fn jobs_of_several_callers_do_not_mix() {
    let pool = Pool::new(3);
    std::thread::scope(|scope| {
        for caller in 0..4usize {
            let pool = pool.clone();
            scope.spawn(move || {
                for round in 0..300 {
                    let mut data = vec![0usize; 97];
                    let failing = (caller + round) % 7 == 0;
                    let result = pool.chunks(&mut data, 5, |i, part| {
                        assert!(!(failing && i == 3), "caller {caller}");
                        part.fill(caller + 1);
                    });
                    match result {
                        Ok(()) => assert!(!failing && data.iter().all(|&x| x == caller + 1)),
                        Err(error) => assert!(failing && error.0 == format!("caller {caller}")),
                    }
                }
            });
        }
    });
}

/// Parked workers wake, and a caller parks while a worker is slow: both sides of the spin.
#[test]
fn sleepers_wake_on_both_sides() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(1));
        let count = AtomicUsize::new(0);
        pool.run(8, |i| {
            if i % 4 == 1 {
                std::thread::sleep(Duration::from_micros(400));
            }
            count.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(count.into_inner(), 8);
    }
}

#[test]
fn the_last_clone_joins_the_threads() {
    let pool = Pool::new(4);
    let shared = std::sync::Arc::downgrade(&pool.workers.shared);
    let clone = pool.clone();
    drop(pool);
    clone.run(10, |_| {}).unwrap();
    assert_eq!(clone.threads(), 4);
    drop(clone);
    assert!(shared.upgrade().is_none(), "a thread still holds the shared state");
}

/// The CPUs that the calling thread may run on.
#[cfg(target_os = "linux")]
#[test]
fn pinned_workers_stay_on_their_cpus() {
    let here = super::pin::allowed();
    let pool = Pool::pinned(here.len().min(4));
    let seen: Vec<std::sync::Mutex<Vec<Vec<usize>>>> =
        (0..64).map(|_| Default::default()).collect();
    // On a thread of its own: the test's stays free.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(64, |i| {
                seen[i].lock().unwrap().push(super::pin::allowed());
                std::thread::sleep(Duration::from_micros(100));
            })
            .unwrap();
        });
    });
    for seen in seen {
        let seen = seen.into_inner().unwrap();
        assert!(seen.iter().all(|cpus| cpus.len() == 1 && here.contains(&cpus[0])), "{seen:?}");
    }
    assert_eq!(super::pin::allowed(), here);
}

#[test]
fn background_jobs_leave_half_of_the_time_to_short_ones() {
    let busy = |time: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    };
    let pool = Pool::new(2);
    let (stop, long_jobs) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let background = pool.background();
        let (stop, long_jobs) = (&stop, &long_jobs);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                background.run(2, |_| busy(Duration::from_millis(2))).unwrap();
                long_jobs.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Alone, it is not held up: fifty jobs come and go.
        while long_jobs.load(Ordering::Relaxed) < 50 {
            std::thread::yield_now();
        }
        let before = long_jobs.load(Ordering::Relaxed);
        for _ in 0..400 {
            pool.run(2, |_| busy(Duration::from_micros(20))).unwrap();
        }
        let beside = long_jobs.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        // By turns it would be 400 of them.
        assert!(beside < 200, "{beside} long jobs beside 400 short ones");
    });
}
