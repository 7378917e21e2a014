//! Random text: nothing panics.

use std::path::Path;

use proptest::prelude::*;

use super::{base, tree};
use crate::dockerfile::health::duration;
use crate::dockerfile::pattern::FilePattern;
use crate::dockerfile::words::expand;
use crate::dockerfile::{BuildContext, Dockerignore, read};

const PIECES: &[&str] = &[
    "FROM a\n",
    "FROM ",
    "ARG ",
    "ENV ",
    "LABEL ",
    "COPY ",
    "ADD ",
    "WORKDIR ",
    "USER ",
    "CMD ",
    "ENTRYPOINT ",
    "EXPOSE ",
    "HEALTHCHECK ",
    "STOPSIGNAL ",
    "VOLUME ",
    "RUN ",
    "ONBUILD ",
    "SHELL ",
    "MAINTAINER ",
    "--chown=",
    "--interval=",
    "NONE",
    "<<E",
    "E",
    "\\\n",
    "\\",
    "`",
    "# escape=`\n",
    "# syntax=",
    "\n",
    "\r\n",
    " ",
    "\t",
    "$",
    "${",
    "}",
    ":-",
    ":+",
    ":?",
    ":",
    "'",
    "\"",
    "[",
    "]",
    "[\"",
    "\", \"",
    "\"]",
    ",",
    "=",
    "a",
    "b/",
    "..",
    "/",
    "*",
    "**",
    "?",
    "!",
    "#",
    "é",
    "\u{2028}",
    "\u{feff}",
    "1",
    "80-90",
    "/udp",
    "1m",
    "x=y",
    "\0",
];

/// Random text from pieces of Dockerfiles.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(PIECES);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), dockerfile_like()]) {
        let context = BuildContext::new(Path::new("/"), Vec::new(), Some(&text)).unwrap();
        for text in [text.clone(), format!("FROM a\n{text}")] {
            if let Ok(recipe) = read(&text) {
                let _ = recipe.apply(&base(), &tree(), &context);
            }
        }
    }

    #[test]
    fn no_word_panics(
        word in prop_oneof![any::<String>(), dockerfile_like()],
        path in any::<String>(),
    ) {
        let lookup = |name: &str| (name != "b").then(|| name.to_owned());
        let _ = expand(&word, '\\', &lookup);
        let _ = expand(&word, '`', &lookup);
        let _ = Dockerignore::new(&word).ignores(&path);
        let _ = FilePattern::of_copy(&word).is_some_and(|pattern| pattern.matches(&path));
        let _ = duration(&word);
    }

    /// Plain words and quoted words expand to themselves.
    #[test]
    fn plain_words_are_unchanged(word in "[a-zA-Z0-9_./:=-]{0,20}", quoted in "[^'\\x00]{0,20}") {
        let lookup = |_: &str| None;
        prop_assert_eq!(expand(&word, '\\', &lookup), Ok(word));
        prop_assert_eq!(expand(&format!("'{quoted}'"), '\\', &lookup), Ok(quoted));
    }

    /// A literal name matches itself, and `*` matches every name without a slash.
    #[test]
    fn patterns_match_names(name in "[a-zé./]{1,12}") {
        let is_match = |pattern: &str| FilePattern::of_copy(pattern).unwrap().matches(&name);
        prop_assert!(is_match(&name));
        prop_assert_eq!(is_match("*"), !name.contains('/'));
        prop_assert!(FilePattern::of_ignore("**").unwrap().matches(&name));
    }
}
