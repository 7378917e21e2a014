//! Quotes in command lines of bash. bash passes the line as it was typed, and inserts a candidate
//! without quoting it.

/// The quote that is open at the end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A line up to the cursor.
#[derive(Debug)]
pub struct Line {
    /// The words without quotes. The last one ends at the cursor, and may be empty.
    pub words: Vec<String>,
    /// The quote that is open at the cursor.
    quote: Quote,
    /// The start of the last word, which bash does not replace, in bytes without quotes: bash
    /// splits words at `=` and `:` too.
    kept: usize,
}

impl Line {
    /// Reads a line. `replaced` is the end of it that bash replaces.
    pub fn read(line: &str, replaced: &str) -> Self {
        let (words, quote) = split(line, Quote::None);
        let last = words.last().map_or("", String::as_str);
        // Inside of quotes bash does not count the opening quote as replaced.
        let (replaced, _) = split(replaced, quote);
        let replaced = replaced.join(" ");
        let kept = last.strip_suffix(replaced.as_str()).map_or(0, str::len);
        Self { words, quote, kept }
    }

    /// What bash inserts for a candidate, which is a whole word.
    pub fn replacement(&self, candidate: &str) -> String {
        quoted(candidate.get(self.kept..).unwrap_or(candidate), self.quote)
    }
}

/// One word without its quotes.
pub fn unquoted(word: &str) -> String {
    split(word, Quote::None).0.join(" ")
}

/// The words of a text without quotes, and the quote that is open at its end.
fn split(text: &str, open: Quote) -> (Vec<String>, Quote) {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), open);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Quote::None, '\\') => word.extend(characters.next()),
            (Quote::Double, '\\') if characters.peek().is_some_and(|&next| is_active(next)) => {
                word.extend(characters.next());
            }
            (Quote::None, '\'') => quote = Quote::Single,
            (Quote::None, '"') => quote = Quote::Double,
            (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
            (Quote::None, ' ' | '\t') => {
                // Several spaces separate two words.
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, character) => word.push(character),
        }
    }
    words.push(word);
    (words, quote)
}

/// A text for a place where this quote is open.
fn quoted(text: &str, quote: Quote) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match quote {
            Quote::None if is_special(character) => out.push('\\'),
            Quote::Double if is_active(character) => out.push('\\'),
            Quote::Single if character == '\'' => out.push_str("'\\'"),
            _ => {}
        }
        out.push(character);
    }
    out
}

/// Whether a character is special in double quotes.
fn is_active(character: char) -> bool {
    "\"\\$`".contains(character)
}

/// Whether a character is special to a shell.
fn is_special(character: char) -> bool {
    !character.is_alphanumeric() && !"-_./=:,+@%^".contains(character)
}

#[cfg(test)]
mod tests {
    use super::Line;

    /// A line, the end that bash replaces, the last word, a candidate, and what is inserted.
    const CASES: [(&str, &str, &str, &str, &str); 10] = [
        ("alokai store ", "", "", "list", "list"),
        ("alokai store  li", "li", "li", "list", "list"),
        ("alokai -s --store=u", "u", "--store=u", "--store=us", "us"),
        ("alokai --store=", "", "--store=", "--store=us", "us"),
        (
            "alokai a/\\(sh",
            "a/\\(sh",
            "a/(sh",
            "a/(shop)/",
            "a/\\(shop\\)/",
        ),
        (
            "alokai \"a/(sh",
            "a/(sh",
            "a/(sh",
            "a/(shop)/$x",
            "a/(shop)/\\$x",
        ),
        ("alokai 'it", "it", "it", "it's", "it'\\''s"),
        ("alokai a\\ b", "a\\ b", "a b", "a b c", "a\\ b\\ c"),
        ("alokai x/a:b", "b", "x/a:b", "x/a:bc", "bc"),
        ("alokai \"a\\\"", "a\\\"", "a\"", "a\"b", "a\\\"b"),
    ];

    #[test]
    fn words_are_read_and_candidates_are_quoted_for_their_place() {
        for (line, replaced, last, candidate, inserted) in CASES {
            let read = Line::read(line, replaced);
            assert_eq!(read.words.last().map(String::as_str), Some(last), "{line}");
            assert_eq!(read.replacement(candidate), inserted, "{line}");
        }
    }
}
