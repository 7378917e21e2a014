//! `.env` files, read by npm's `dotenv` and by this program.

use std::collections::BTreeMap;
use std::process::Command;

use alokai::dotenv::parse;

use crate::support::{Random, installed, output_of};

/// The pieces of files; they are few, so that invalid files are frequent.
const PIECES: [&str; 26] = [
    "A", "B.c-1", "x y", "=", "=", "=", ": ", ":", " ", "\t", "\n", "\n", "\r\n", "\r", "'", "\"",
    "`", "\\", "\\n", "\\r", "#", "export ", "é", "\u{a0}", "\u{feff}", "\u{85}",
];

/// Prints what `dotenv` makes of each text of a JSON array.
const PROGRAM: &str = "const { parse } = require('dotenv');
const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(texts.map((text) => parse(text))));";

#[test]
fn random_files_are_read_as_npms_dotenv_reads_them() {
    let folder = installed(&["dotenv@18.0.10"]);
    let random = &mut Random::new(4_711);
    let texts: Vec<String> = (0..20_000)
        .map(|_| {
            (0..random.below(40))
                .map(|_| random.pick(&PIECES))
                .collect()
        })
        .collect();
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), serde_json::to_vec(&texts).unwrap()).unwrap();
    let output = output_of(
        Command::new("node")
            .args(["-e", PROGRAM])
            .current_dir(folder)
            .stdin(std::fs::File::open(input.path()).unwrap()),
    );
    let expected: Vec<BTreeMap<String, String>> = serde_json::from_str(&output).unwrap();
    assert_eq!(expected.len(), texts.len());
    let mut assignments = 0;
    for (text, expected) in texts.iter().zip(expected) {
        let found: BTreeMap<String, String> = parse(text).into_iter().collect();
        assignments += found.len();
        assert_eq!(found, expected, "{text:?}");
    }
    assert!(assignments > 1_500, "only {assignments} assignments");
}
