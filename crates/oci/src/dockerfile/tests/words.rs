//! `.dockerignore`, durations and words.

use crate::dockerfile::Dockerignore;
use crate::dockerfile::health::duration;
use crate::dockerfile::words::expand;

#[test]
fn the_engine_receives_more_than_copy_sees() {
    let ignore = Dockerignore::new("*\n!src\n**/*.md\n");
    for (path, ignored, sent) in [
        ("Dockerfile", true, true),
        (".dockerignore", true, true),
        ("sub/Dockerfile", true, false),
        ("src/a", false, true),
        ("src/a.md", true, false),
        ("other", true, false),
    ] {
        assert_eq!(
            (ignore.ignores(path), ignore.sends(path)),
            (ignored, sent),
            "{path}"
        );
    }
}

#[test]
fn durations_have_the_format_of_go() {
    for (text, nanoseconds) in [
        ("0", Some(0)),
        ("1ns", Some(1)),
        ("1.5h", Some(5_400_000_000_000)),
        ("+1m30s", Some(90_000_000_000)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("3µs2us", Some(5_000)),
        ("", None),
        ("+", None),
        ("1", None),
        (".s", None),
        ("-1s", None),
        ("1 s", None),
        ("1d", None),
        ("9999999h", None),
        ("99999999999999999999s", None),
    ] {
        assert_eq!(duration(text), nanoseconds, "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    let deep = "${a:-".repeat(100_000);
    assert!(expand(&deep, '\\', &|_| None).is_err());
    let fine = format!("{}x{}", "${a:-".repeat(20), "}".repeat(20));
    assert_eq!(expand(&fine, '\\', &|_| None), Ok("x".into()));
}

#[test]
fn two_stars_before_text_match_the_end_of_a_path() {
    let ignore = Dockerignore::new("**og");
    assert!(ignore.ignores("b.log"));
    assert!(ignore.ignores("x/y/b.log"));
    assert!(!ignore.ignores("x/b.logs"));
}
