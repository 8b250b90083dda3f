//! Page cache and anonymous memory, of which the kernel takes page cache first.

use super::*;

/// Stall per refaulted byte from zram.
const PRICE: f64 = 25.0 / 4096.0;

/// Returns a cache in memory: most of it is anonymous, and each key in use is read every 15 s; its
/// program's file is in use all the time. Of what the kernel takes of its anonymous memory, the
/// share `wrong` is in use.
fn cache(wrong: f64) -> App {
    let file = App { price: PRICE, ..App::new(8.0, 5.0) };
    let anon = App { needed: 1.0 / 15.0, wrong, price: PRICE, ..App::new(108.0, 292.0) };
    App { file: Some(Box::new(file)), ..anon }
}

#[test]
fn a_file_in_use_does_not_end_the_approach_to_anonymous_memory() {
    let mut run = Run::new(cache(0.005));
    assert!(run.run(60).over() < 1.15, "{:?}", run.app);
    run.run(240);
    for _ in 0..30 {
        run.run(20);
        assert!((0.85..1.15).contains(&run.over()), "{:?}", run.app);
    }
    let good = run.told.iter().all(|set| (108..=125).contains(&(set.bytes >> 20)));
    assert!(good && run.last().1 > 0.6, "{}", run.all());
    // A limit has room for what the kernel wouldn't take under it: it takes page cache first.
    let suggested = run.told.iter().filter_map(|set| set.suggested).map(|bytes| bytes >> 20);
    assert!(suggested.clone().count() > 5 && suggested.min() > Some(380), "{}", run.all());
    let idle = run.told.last().map(|set| set.idle_anon >> 20);
    assert!(idle.is_some_and(|idle| (230..=300).contains(&idle)), "{idle:?} of {}", run.all());
    // Both are pressed by turns.
    let mut kinds = [0, 0];
    for _ in 0..600 {
        run.run(1);
        kinds[usize::from(run.policy.kind() == Kind::Anon)] += 1;
    }
    assert!(kinds.iter().all(|&seconds| seconds > 100), "{kinds:?}");
}

/// Its page cache is written all the time, 4 MB/s, and written back after five seconds.
#[test]
fn a_steady_writer_does_not_hold_up_the_approach() {
    let file = App { fresh: 4e6, unwritten: 20e6, ..App::new(0.0, 100.0) };
    let app = App { file: Some(Box::new(file)), ..App::new(60.0, 240.0) };
    let mut run = Run::new(app);
    run.run(60);
    assert!(run.app.cold < 12.0 * M, "{:?}", run.app);
}

/// From 6.11 to 6.15 the kernel can be asked for anonymous memory first only, and may take page cache.
#[test]
fn where_anonymous_memory_can_only_be_preferred_what_comes_back_of_page_cache_counts() {
    let mut run = Run::new(App { swappable: Anon::First, ..cache(0.005) });
    assert!(run.run(60).over() < 1.15, "{:?}", run.app);
    run.run(240);
    for _ in 0..30 {
        run.run(20);
        assert!((0.85..1.15).contains(&run.over()), "{:?}", run.app);
    }
    // All of the page cache is in use, and the kernel takes it whatever it is asked for.
    let file = App { price: PRICE, ..App::new(60.0, 20.0) };
    let app = App { file: Some(Box::new(file)), price: PRICE, ignores: true, ..App::new(10.0, 30.0) };
    let mut run = Run::new(App { swappable: Anon::First, ..app });
    for _ in 0..30 {
        run.run(20);
        let file = run.app.file.as_ref().expect("its page cache");
        assert!(file.hot_outside < 0.2 * file.in_use(), "{:?}", run.app);
    }
    assert!(run.app.stalled_in_all() < 2_000_000.0, "{:?}", run.app);
    assert!(run.told.len() > 5 && run.told.iter().all(|set| set.is_bound), "{}", run.all());
}

/// Of each huge page, some keys are in use.
#[test]
fn memory_of_which_every_huge_page_is_in_use_is_told_as_a_bound_until_it_is_found() {
    let mut run = Run::new(cache(0.27));
    run.run(1500);
    assert!(run.over() < 1.15, "{:?}", run.app);
    assert!(run.app.stalled < 1_500_000.0, "{:?}", run.app);
    for set in &run.told {
        assert!(set.bytes as f64 > 0.95 * run.app.in_use(), "{}", run.all());
        assert!(set.is_bound || (set.bytes as f64) < 1.15 * run.app.in_use(), "{}", run.all());
    }
}

/// Before 6.11, and where a rule gives a weight.
#[test]
fn anonymous_memory_that_the_kernel_does_not_take_makes_the_estimate_a_bound() {
    let mut run = Run::new(App { swappable: Anon::Mixed, ..cache(0.005) });
    for _ in 0..60 {
        run.run(10);
        assert_eq!(run.policy.kind(), Kind::All);
    }
    assert!(run.told.len() > 5 && run.told.iter().all(|set| set.is_bound), "{}", run.all());
}
