//! Words of a Dockerfile: quotes, escapes and variables.
//!
//! Docker reads them twice. [`split`] splits an `ENV` or `LABEL` into words and keeps quotes and
//! escapes; [`expand`] replaces variables and removes quotes and escapes.

use std::iter::Peekable;
use std::str::Chars;

/// Levels of `${a:-${b:-…}}`. A limit, so that a malicious text cannot overflow the stack.
const DEEPEST: usize = 50;

/// Returns a variable's value.
pub(super) type VariableLookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Replaces variables with their values, and removes quotes and escapes.
pub(super) fn expand(word: &str, escape: char, lookup: &VariableLookup) -> Result<String, String> {
    let mut lexer = WordLexer {
        rest: word.chars().peekable(),
        escape,
        lookup,
        depth: 0,
    };
    lexer.until(None)
}

struct WordLexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: &'a VariableLookup<'a>,
    depth: usize,
}

impl WordLexer<'_> {
    /// Expands the text before `stop`, and consumes `stop`.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.variable()?),
                _ if character == self.escape => match self.rest.next() {
                    Some(escaped) => text.push(escaped),
                    None => break,
                },
                _ => text.push(character),
            }
        }
        match stop {
            Some(stop) => Err(format!("a `{stop}` is missing")),
            None => Ok(text),
        }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(character) => text.push(character),
                None => return Err("a `'` is missing".into()),
            }
        }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => text.push_str(&self.variable()?),
                Some(character) if character == self.escape => {
                    let escapable = |next: &char| ['"', '$', self.escape].contains(next);
                    match self.rest.peek().copied() {
                        Some(next) if escapable(&next) => {
                            self.rest.next();
                            text.push(next);
                        }
                        Some(_) => text.push(character),
                        None => {}
                    }
                }
                Some(character) => text.push(character),
                None => return Err("a `\"` is missing".into()),
            }
        }
    }

    /// The value of a variable, after its `$`.
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
            return Err("`${` has no variable name".into());
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok((self.lookup)(&name).unwrap_or_default()),
            Some(':') => self.modified(&name),
            None => Err("a `}` is missing".into()),
            Some(other) => Err(format!(
                "only BuildKit supports `{}` in `${{{name}…}}`",
                other.escape_debug()
            )),
        }
    }

    /// The value of a variable with a modifier, after `${name:`.
    fn modified(&mut self, name: &str) -> Result<String, String> {
        let modifier = self.rest.next();
        if self.depth == DEEPEST {
            return Err("variables are nested too deeply".into());
        }
        let kind = match modifier {
            Some(kind @ ('-' | '+' | '?')) => kind,
            Some(_) => return Err(format!("`${{{name}:` needs `-`, `+` or `?`")),
            None => return Err("a `}` is missing".into()),
        };
        self.depth += 1;
        let word = self.until(Some('}'))?;
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

    /// A variable's name: a number, a special character of the shell, or a word.
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

/// Splits at spaces that are not quoted or escaped. Quotes and escapes are kept.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == escape && quote != Some('\'') {
            // Docker drops an escape at the end of the text.
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

/// Names and values of `ENV` and `LABEL`: `a=b c=d`, or the legacy form `a b`, in which the value
/// is the rest of the line.
pub(super) fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split(text, escape);
    let Some(first) = words.first() else {
        return Err("it has no name".into());
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
        None => Err(format!("`{word}` is not `name=value`")),
    };
    words.into_iter().map(pair).collect()
}
