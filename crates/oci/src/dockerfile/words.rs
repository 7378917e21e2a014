//! Words of a Dockerfile: where they end, what quotes and escapes mean, and what variables are.
//!
//! Docker goes through them twice. Splitting an `ENV` or `LABEL` into words keeps quotes and
//! escapes ([`split`]); expanding a word takes them out ([`expand`]).

use std::iter::Peekable;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may go. Nobody writes three; a text that goes on and on must not end
/// this program.
const DEEPEST: usize = 50;

/// Gives a variable's value.
pub(super) type VariableLookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A word with its variables' values, without quotes and escapes.
pub(super) fn expand(word: &str, escape: char, lookup: &VariableLookup) -> Result<String, String> {
    Ok(expanded(word, escape, lookup)?.whole)
}

/// The same, but what stands apart outside of quotes becomes words, and a variable's value may be
/// several: `EXPOSE $PORTS`.
pub(super) fn expand_all(
    word: &str,
    escape: char,
    lookup: &VariableLookup,
) -> Result<Vec<String>, String> {
    Ok(expanded(word, escape, lookup)?.words())
}

fn expanded(word: &str, escape: char, lookup: &VariableLookup) -> Result<ExpandedWord, String> {
    let mut lexer = WordLexer {
        rest: word.chars().peekable(),
        escape,
        lookup,
        depth: 0,
    };
    lexer.until(None)
}

/// What has been expanded: as one text, and as words.
#[derive(Default)]
struct ExpandedWord {
    whole: String,
    ended: Vec<String>,
    word: String,
}

impl ExpandedWord {
    /// Takes a character that is part of a word whatever it is.
    fn keep(&mut self, character: char) {
        self.whole.push(character);
        self.word.push(character);
    }

    /// Takes text that nothing quotes.
    fn split(&mut self, text: &str) {
        for character in text.chars() {
            if character.is_whitespace() {
                self.whole.push(character);
                self.end_word();
            } else {
                self.keep(character);
            }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.ended.push(std::mem::take(&mut self.word));
        }
    }

    fn words(mut self) -> Vec<String> {
        self.end_word();
        self.ended
    }
}

struct WordLexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: &'a VariableLookup<'a>,
    depth: usize,
}

impl WordLexer<'_> {
    /// Everything up to this character, which is taken too.
    fn until(&mut self, stop: Option<char>) -> Result<ExpandedWord, String> {
        let mut text = ExpandedWord::default();
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => {
                    let value = self.variable()?;
                    text.split(&value);
                }
                _ if character == self.escape => match self.rest.next() {
                    Some(escaped) => text.keep(escaped),
                    None => break,
                },
                _ => text.split(character.encode_utf8(&mut [0; 4])),
            }
        }
        match stop {
            Some(stop) => Err(format!("a `{stop}` is missing")),
            None => Ok(text),
        }
    }

    fn single_quoted(&mut self, text: &mut ExpandedWord) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(character) => text.keep(character),
                None => return Err("a `'` is missing".into()),
            }
        }
    }

    fn double_quoted(&mut self, text: &mut ExpandedWord) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.variable()?;
                    value.chars().for_each(|character| text.keep(character));
                }
                Some(character) if character == self.escape => {
                    let escapable = |next: &char| ['"', '$', self.escape].contains(next);
                    match self.rest.peek().copied() {
                        Some(next) if escapable(&next) => {
                            self.rest.next();
                            text.keep(next);
                        }
                        Some(_) => text.keep(character),
                        None => {}
                    }
                }
                Some(character) => text.keep(character),
                None => return Err("a `\"` is missing".into()),
            }
        }
    }

    /// What stands after a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".into(),
                name => (self.lookup)(name).unwrap_or_default(),
            });
        }
        if self
            .rest
            .peek()
            .is_some_and(|next| ['{', '}', ':'].contains(next))
        {
            return Err("a `${` without a name".into());
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok((self.lookup)(&name).unwrap_or_default()),
            Some(':') => self.otherwise(&name),
            None => Err("a `}` is missing".into()),
            Some(other) => Err(format!(
                "`{}` in `${{{name}…}}` is only known to BuildKit",
                other.escape_debug()
            )),
        }
    }

    /// What stands after `${name:`.
    fn otherwise(&mut self, name: &str) -> Result<String, String> {
        let modifier = self.rest.next();
        if self.depth == DEEPEST {
            return Err("variables stand too deep in one another".into());
        }
        let kind = match modifier {
            Some(kind @ ('-' | '+' | '?')) => kind,
            Some(_) => return Err(format!("after `${{{name}:` no `-`, `+` or `?` follows")),
            None => return Err("a `}` is missing".into()),
        };
        self.depth += 1;
        let word = self.until(Some('}'))?.whole;
        self.depth -= 1;
        let value = (self.lookup)(name).filter(|value| !value.is_empty());
        match (kind, value) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("`{name}` has no value")),
            (_, None) => Err(format!("`{name}`: {word}")),
        }
    }

    /// A variable's name: a number, one of the shell's own, or a word.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(first) if first.is_numeric() => {
                while let Some(digit) = self.rest.next_if(|next| next.is_numeric()) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                let is_part = |next: &char| next.is_alphanumeric() || *next == '_';
                while let Some(part) = self.rest.next_if(is_part) {
                    name.push(part);
                }
            }
        }
        name
    }
}

/// Words between spaces that are neither quoted nor escaped. Quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == escape && quote != Some('\'') {
            // One at the very end escapes nothing and is dropped.
            if let Some(escaped) = rest.next() {
                word.extend([character, escaped]);
            }
            continue;
        }
        match quote {
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if character == '\'' || character == '"' => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What `ENV` and `LABEL` name: `a=b c=d`, or of old `a b`, where the value is the rest of the
/// line.
pub(super) fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split(text, escape);
    let Some(first) = words.first() else {
        return Err("it names nothing".into());
    };
    if !first.contains('=') {
        let text = text.trim();
        let Some((name, value)) = text.split_once(char::is_whitespace) else {
            return Err(format!("`{text}` has no value"));
        };
        return Ok(vec![(name.into(), value.trim_start().into())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(format!("`{word}` has no name")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("`{word}` is no `name=value`")),
    };
    words.into_iter().map(pair).collect()
}
