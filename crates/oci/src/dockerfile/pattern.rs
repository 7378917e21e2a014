//! Patterns of file names: Go's `filepath.Match`, which `COPY` has, and `.dockerignore`'s, which
//! knows `**` besides.
//!
//! `globset` means other things by braces, by `[^…]` and by `\` at the end, so it is our own.

/// A pattern in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePattern(Vec<PatternToken>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternToken {
    /// This character.
    Character(char),
    /// `?`: one that is no slash.
    One,
    /// `*`: any that are no slash.
    Any,
    /// `**`: any.
    All,
    /// `**/`: any folders, also none.
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

/// Whether `COPY` takes it for a pattern.
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
    /// A pattern of `COPY`; nothing where it is malformed, so that it matches nothing.
    pub fn of_copy(text: &str) -> Option<Self> {
        Self::read(text, false)
    }

    /// A pattern of `.dockerignore`.
    pub fn of_ignore(text: &str) -> Option<Self> {
        Self::read(text, true)
    }

    fn read(text: &str, has_folders: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            pieces.push(match character {
                '\\' => PatternToken::Character(rest.next()?),
                '?' => PatternToken::One,
                '*' if has_folders && rest.next_if_eq(&'*').is_some() => {
                    let is_folders = rest.next_if_eq(&'/').is_some();
                    // `**a` is whatever ends in `a`, but `**a?` is `a?` in some folder: moby
                    // compares the end of a path only with plain text.
                    let is_end = pieces.is_empty() && !is_folders && rest.clone().all(is_plain);
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
        Some(Self(pieces))
    }

    /// Whether the whole path is so.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // Which beginnings of the path the pieces so far match.
        let mut ends = vec![false; path.len() + 1];
        ends[0] = true;
        for piece in &self.0 {
            ends = piece.step(&path, &ends);
        }
        ends[path.len()]
    }
}

impl PatternToken {
    /// From the ends that the pieces before have to the ends with this one.
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

/// What stands after a `[`.
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
