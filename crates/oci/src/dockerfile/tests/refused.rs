//! Instructions that are refused.

use super::apply;
use crate::dockerfile::{Error, read};

/// Dockerfiles, their line that is refused, and why.
const REFUSED: &[(&str, usize, &str)] = &[
    (
        "FROM a\nRUN npm ci --omit=dev",
        2,
        "`RUN` instructions are not supported without Docker",
    ),
    (
        "FROM a AS b\n\n# c\nFROM d",
        4,
        "a second stage is not supported",
    ),
    (
        "FROM a\nCOPY --from=b /x /y",
        2,
        "`--from` copies from another image",
    ),
    ("FROM a\nCOPY --link x y", 2, "`--link` needs BuildKit"),
    ("FROM a\nCOPY --link=true x y", 2, "`--link` needs BuildKit"),
    (
        "FROM a\nCOPY --chmod=755 x y",
        2,
        "`--chmod` needs BuildKit",
    ),
    (
        "FROM a\nCOPY --chown=1 --chown=2 x y",
        2,
        "`--chown` occurs twice",
    ),
    ("FROM a\nADD https://a.b/c /x", 2, "`ADD` downloads a file"),
    ("FROM a\nONBUILD USER x", 2, "`ONBUILD` is not supported"),
    (
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]",
        2,
        "`SHELL` is not supported",
    ),
    (
        "FROM a\nCOPY <<E /x\nhello\nE\n",
        2,
        "a here-document needs BuildKit",
    ),
    (
        "# syntax=somebody/else:1\nFROM a",
        1,
        "the `syntax` directive selects an unsupported frontend",
    ),
    ("FROM a:$TARGETARCH", 1, "only BuildKit sets `TARGETARCH`"),
    (
        "FROM --platform=$BUILDPLATFORM a",
        1,
        "only BuildKit sets `BUILDPLATFORM`",
    ),
    ("FROM a\nARG TARGETOS", 2, "only BuildKit sets `TARGETOS`"),
    (
        "FROM a\nENV A=${B#c}",
        2,
        "only BuildKit supports `#` in `${B…}`",
    ),
    ("FROM a\nENV A=\"b", 2, "a `\"` is missing"),
    ("FROM a\nENV A=${b", 2, "a `}` is missing"),
    ("FROM a\nENV A=${}", 2, "`${` has no variable name"),
    ("FROM a\nENV A", 2, "`A` has no value"),
    ("FROM a\nLABEL =b", 2, "`=b` has no name"),
    ("FROM a\nCMD [1]", 2, "the command is not valid"),
    ("FROM a\nCMD", 2, "the command is not valid"),
    (
        "FROM a\nHEALTHCHECK --interval=1 CMD x",
        2,
        "the value of `--interval` is not valid",
    ),
    (
        "FROM a\nHEALTHCHECK --retries=0 CMD x",
        2,
        "the value of `--retries` is not valid",
    ),
    (
        "FROM a\nHEALTHCHECK --start-interval=1s CMD x",
        2,
        "not every engine supports `--start-interval`",
    ),
    (
        "FROM a\nHEALTHCHECK --retries=1 NONE",
        2,
        "`--retries` is not allowed here",
    ),
    ("FROM $a", 1, "the name of the base image is empty"),
    ("FROM a AS 1", 1, "the name of the stage is not valid"),
    (
        "FROM a\nEXPOSE 80:80",
        2,
        "`80:80` is not a port such as `80/tcp`",
    ),
    (
        "FROM a\nEXPOSE 70000",
        2,
        "`70000` is not a port such as `80/tcp`",
    ),
    (
        "FROM a\nSTOPSIGNAL SIGNOTHING",
        2,
        "`SIGNOTHING` is not a known signal",
    ),
    (
        "FROM a\nEXPOSE",
        2,
        "it is not valid (EXPOSE instruction requires at least one argument)",
    ),
    (
        "FROM a\nFETCH b",
        2,
        "it is not valid (unknown instruction 'FETCH')",
    ),
    (
        "",
        1,
        "it is not valid (expected at least one FROM instruction)",
    ),
    // BuildKit and the classic builder differ.
    (
        "FROM a\nCOPY --chown=guest x /",
        2,
        "the group of the user `guest` depends on the Docker builder",
    ),
    (
        "FROM a\nENV A=1\nARG A=2",
        3,
        "`A` is set by both `ARG` and `ENV`, and the value depends on the Docker builder",
    ),
    (
        "FROM a\nUSER node\nWORKDIR /new",
        3,
        "the owner of a folder that `WORKDIR` creates after `USER` depends on the Docker builder",
    ),
    (
        "FROM a\nCOPY x x /y",
        2,
        "it copies several sources to a destination without `/` at its end",
    ),
    ("FROM a\nCOPY ../x /", 2, "`../x` is outside of its root"),
    ("FROM a\nCOPY z* /", 2, "no file matches its source"),
    (
        "FROM a\nCOPY */x /",
        2,
        "wildcards in folder names of the source are not supported",
    ),
];

#[test]
fn instructions_that_need_docker_are_refused() {
    for &(text, line, why) in REFUSED {
        let Err(Error::Refused(refusal)) = apply(text, &["x"]) else {
            panic!("{text}");
        };
        assert_eq!((refusal.line, refusal.why.as_str()), (line, why), "{text}");
        let written = text.lines().nth(line - 1).unwrap_or_default();
        assert_eq!(refusal.instruction, written, "{text}");
    }
}

#[test]
fn a_refusal_shows_a_shortened_line() {
    let text = format!("FROM a\n  RUN {}", "x".repeat(200));
    let refusal = read(&text).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        format!(
            "line 2 of the Dockerfile needs Docker: `RUN` instructions are not supported without Docker: `RUN {}…`",
            "x".repeat(56)
        )
    );
}
