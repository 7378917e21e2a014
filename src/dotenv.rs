//! Reads `.env` files as the npm package `dotenv` does. Variables are not expanded, so a password
//! may contain `$`. The Rust crates for `.env` files expand variables, and stop at the first line
//! that is not an assignment.

use std::sync::LazyLock;

use regex::Regex;

/// White space in JavaScript.
const SPACE: &str = r"[\t\n\x0B\x0C\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}]";

/// An assignment: optionally `export`, a name, `=` or `: `, a value that may be quoted and span
/// several lines, and optionally a comment. The order of the alternatives is that of `dotenv`,
/// since it decides how broken quotes are read.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"(?m)^S*(?:exportS+)?([0-9A-Za-z_.-]+)(?:S*=S*?|:S+?)(S*'(?:\\'|[^'])*'|S*"(?:\\"|[^"])*"|S*`(?:\\`|[^`])*`|[^#\r\n]+)?S*(?:#[^\n\r\u{2028}\u{2029}]*)?$"#;
    Regex::new(&pattern.replace('S', SPACE)).expect("a test compiles this constant")
});

/// Names and values in the order of the file. Of two with the same name, the later wins.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let assignments = ASSIGNMENT.captures_iter(&text);
    assignments
        .map(|found| {
            let value = found.get(2).map_or("", |value| value.as_str());
            (found[1].to_owned(), value_of(value))
        })
        .collect()
}

/// The value without surrounding spaces and quotes. In double quotes, `\n` and `\r` are line ends.
fn value_of(written: &str) -> String {
    let written = written.trim_matches(is_space);
    let value = unquoted(written);
    if written.starts_with('"') {
        value.replace("\\n", "\n").replace("\\r", "\r")
    } else {
        value
    }
}

/// Removes quotes at the start of a line and the last matching quote at the end of a line.
fn unquoted(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    loop {
        let quote = rest
            .chars()
            .next()
            .filter(|it| matches!(it, '"' | '\'' | '`'));
        let closed = quote.and_then(|quote| {
            let ends = rest.rmatch_indices(quote).map(|(at, _)| at);
            ends.take_while(|at| *at > 0).find(|at| {
                let behind = &rest[at + 1..];
                behind.is_empty() || behind.starts_with('\n')
            })
        });
        if let Some(end) = closed {
            plain.push_str(&rest[1..end]);
            rest = &rest[end + 1..];
        }
        let Some(line) = rest.find('\n') else {
            plain.push_str(rest);
            return plain;
        };
        plain.push_str(&rest[..=line]);
        rest = &rest[line + 1..];
    }
}

fn is_space(char: char) -> bool {
    match char {
        '\u{feff}' => true,
        // U+0085 is white space in Unicode, but not in JavaScript.
        '\u{85}' => false,
        other => other.is_whitespace(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// A text, and the last assignment in it: its name and value.
    const CASES: [(&str, &str, &str); 44] = [
        ("A=plain", "A", "plain"),
        (
            "# why\n\n\nA=behind lines without one",
            "A",
            "behind lines without one",
        ),
        ("A=", "A", ""),
        ("A=''", "A", ""),
        ("A=\"\"", "A", ""),
        ("A=``", "A", ""),
        ("A='one'", "A", "one"),
        ("A='  one '", "A", "  one "),
        ("A=\"one\"", "A", "one"),
        ("A=\"  one \"", "A", "  one "),
        ("A=`one`", "A", "one"),
        ("A=`  one `", "A", "  one "),
        ("A='say \"x\"'", "A", "say \"x\""),
        ("A=\"say 'x'\"", "A", "say 'x'"),
        ("A='say `x`'", "A", "say `x`"),
        ("A=\"say `x`\"", "A", "say `x`"),
        ("A=`say \"x\"`", "A", "say \"x\""),
        ("A=`say 'x'`", "A", "say 'x'"),
        ("A=`both \"x\" and 'y'`", "A", "both \"x\" and 'y'"),
        ("A=\"{ port: $PORT}\"", "A", "{ port: $PORT}"),
        ("A=\"a\\nb\\rc\"", "A", "a\nb\rc"),
        ("A=a\\nb", "A", "a\\nb"),
        ("A='a\\nb'", "A", "a\\nb"),
        ("B=1\n# A=2", "B", "1"),
        ("A=one two # why #not", "A", "one two"),
        ("A='one # two' # why", "A", "one # two"),
        ("A=\"one # two\" # why", "A", "one # two"),
        ("A=`one # two` # why", "A", "one # two"),
        ("A=one#two", "A", "one"),
        ("A=1==", "A", "1=="),
        ("A={\"x\": \"y\"}", "A", "{\"x\": \"y\"}"),
        ("A='{\"x\": \"y\"}'", "A", "{\"x\": \"y\"}"),
        ("A=`{\"x\": \"y's\"}`", "A", "{\"x\": \"y's\"}"),
        ("A=    spaces around   ", "A", "spaces around"),
        ("A=me@example.com", "A", "me@example.com"),
        ("   A.b-C = 1", "A.b-C", "1"),
        ("A: yaml", "A", "yaml"),
        ("export A=1", "A", "1"),
        ("export   A  =1", "A", "1"),
        ("A=\"1\n2\n3\" # rest", "A", "1\n2\n3"),
        ("A='1\n2'", "A", "1\n2"),
        ("A=`1\n\"2's\"\n3`", "A", "1\n\"2's\"\n3"),
        ("\u{feff}A=behind a mark", "A", "behind a mark"),
        ("A=pa$word-$HOME${X}", "A", "pa$word-$HOME${X}"),
    ];

    #[test]
    fn values_are_what_is_written() {
        for (text, name, value) in CASES {
            let last = parse(text).pop();
            assert_eq!(last, Some((name.to_owned(), value.to_owned())), "{text:?}");
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for end in ["\n", "\r\n", "\r"] {
            let text = ["A=1", "no assignment", "B='2'", "A=3", ""].join(end);
            let expected = [pair("A", "1"), pair("B", "2"), pair("A", "3")];
            assert_eq!(parse(&text), expected, "{end:?}");
        }
        // A quote that nothing closes is a part of the value.
        assert_eq!(parse("A=it's\nB='x"), [pair("A", "it's"), pair("B", "'x")]);
    }
}
