//! Patterns of file names: Go's `filepath.Match` for `COPY`, and the same with `**` for
//! `.dockerignore`.
//!
//! `globset` reads braces, `[^…]` and a `\` at the end in another way, so it cannot be used here.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePattern(Vec<PatternToken>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternToken {
    /// A literal character.
    Character(char),
    /// `?`: one character except a slash.
    One,
    /// `*`: any characters except slashes.
    Any,
    /// `**`: any characters.
    All,
    /// `**/`: zero or more folders.
    Folders,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

fn is_plain(character: char) -> bool {
    !['*', '?', '[', ']', '\\'].contains(&character)
}

/// Whether `COPY` reads this source as a pattern.
pub(super) fn is_pattern(text: &str) -> bool {
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                rest.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

impl FilePattern {
    /// A pattern of `COPY`. `None` if it is malformed.
    pub fn of_copy(text: &str) -> Option<Self> {
        Self::read(text, false)
    }

    /// A pattern of `.dockerignore`. `None` if it is malformed.
    pub fn of_ignore(text: &str) -> Option<Self> {
        Self::read(text, true)
    }

    fn read(text: &str, has_folders: bool) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '\\' => PatternToken::Character(rest.next()?),
                '?' => PatternToken::One,
                '*' if has_folders && rest.next_if_eq(&'*').is_some() => {
                    let is_folders = rest.next_if_eq(&'/').is_some();
                    // `**a` matches every path that ends in `a`, but `**a?` matches `a?` in any
                    // folder: moby compares the end of a path only for plain text.
                    let is_end = tokens.is_empty() && !is_folders && rest.clone().all(is_plain);
                    if is_end || rest.peek().is_none() {
                        PatternToken::All
                    } else {
                        PatternToken::Folders
                    }
                }
                '*' => PatternToken::Any,
                '[' => class(&mut rest)?,
                other => PatternToken::Character(other),
            });
        }
        Some(Self(tokens))
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // `ends[n]`: whether the tokens so far match the first `n` characters.
        let mut ends = vec![false; path.len() + 1];
        ends[0] = true;
        for token in &self.0 {
            ends = token.step(&path, &ends);
        }
        ends[path.len()]
    }
}

impl PatternToken {
    /// Adds this token to the matches of the tokens before it.
    fn step(&self, path: &[char], before: &[bool]) -> Vec<bool> {
        let mut ends = vec![false; before.len()];
        let mut is_open = false;
        for position in 0..before.len() {
            let last = position.checked_sub(1).map(|last| path[last]);
            ends[position] = match self {
                Self::Character(_) | Self::One | Self::Class { .. } => {
                    last.is_some_and(|last| before[position - 1] && self.is(last))
                }
                Self::Any => {
                    is_open = before[position] || (is_open && last != Some('/'));
                    is_open
                }
                Self::All => {
                    is_open |= before[position];
                    is_open
                }
                Self::Folders => {
                    let is_end = before[position] || (is_open && last == Some('/'));
                    is_open |= before[position];
                    is_end
                }
            };
        }
        ends
    }

    fn is(&self, character: char) -> bool {
        match self {
            Self::Character(own) => *own == character,
            Self::One => character != '/',
            Self::Class { negated, ranges } => {
                let within = |(low, high): &(char, char)| (*low..=*high).contains(&character);
                character != '/' && ranges.iter().any(within) != *negated
            }
            Self::Any | Self::All | Self::Folders => false,
        }
    }
}

/// The rest of a character class, after its `[`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars>) -> Option<PatternToken> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(PatternToken::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => class_character(rest)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        other => Some(other),
    }
}
