//! What a program sees that reads a composed file all the time, as a development server does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::follower::{Follower, eventually};
use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";

/// Long enough to be written in several steps.
fn content(name: &str, number: usize) -> String {
    format!("{name} {number}\n").repeat(20_000)
}

fn is_whole(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    text.lines().count() == 20_000 && text.lines().all(|line| line == first)
}

#[test]
fn a_composed_file_is_never_missing_or_half_written_while_its_override_comes_and_goes() {
    let project = Project::shop().file(&format!("apps/{NEXT}/big.txt"), &content("base", 0));
    let follower = Follower::start(&project, "store compose --watch --store us --json");
    let composed = project.path(&format!(".out/us/{NEXT}/big.txt"));
    let place = format!("apps/stores/fashion/stores/us/{NEXT}/big.txt");
    let (ends, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&composed);
                let text = text.unwrap_or_else(|error| panic!("after {reads:?} reads: {error}"));
                assert!(
                    is_whole(&text),
                    "after {reads:?} reads: {} bytes",
                    text.len()
                );
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for number in 0..8 {
            let text = content("us", number);
            project.write(&place, &text);
            let is_there = || std::fs::read_to_string(&composed).is_ok_and(|now| now == text);
            eventually(is_there, || "the override is not composed".into());
            project.remove(&place);
            let base = content("base", 0);
            let is_there = || std::fs::read_to_string(&composed).is_ok_and(|now| now == base);
            eventually(is_there, || "the base file is not composed".into());
        }
        ends.store(true, Ordering::Relaxed);
        reader.join().expect("every read was whole");
    });
    assert!(reads.load(Ordering::Relaxed) > 16);
    drop(follower);
}
