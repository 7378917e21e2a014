//! Ids of records. They sort by time, need no counter, and are unique without a server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Crockford's base 32: digits and letters without I, L, O and U. Its order is that of ASCII.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters for the time: 45 bits of milliseconds since 1970, enough until the year 3084.
const TIME_CHARACTERS: usize = 9;

/// Characters of randomness: 35 bits for each millisecond.
const RANDOM_CHARACTERS: usize = 7;

/// Characters of an id after the letter of its kind.
const CHARACTERS: usize = TIME_CHARACTERS + RANDOM_CHARACTERS;

/// The shortest prefix by which a record may be named, with the letter of its kind.
const SHORTEST_PREFIX: usize = 4;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A build of a store.
    Build,
    /// A build with settings, for a target.
    Release,
    /// Something that happened.
    Event,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Build, Self::Release, Self::Event];

    /// The first letter of ids.
    pub fn letter(self) -> char {
        match self {
            Self::Build => 'B',
            Self::Release => 'R',
            Self::Event => 'E',
        }
    }

    /// The name of the folder for records of this kind.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Build => "builds",
            Self::Release => "releases",
            Self::Event => "events",
        }
    }
}

/// The id of a record: the letter of its kind, and 16 characters of time and randomness. Ids of one
/// kind sort by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    kind: RecordKind,
    text: Arc<str>,
}

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a valid id: an id has one of the letters B, R and E, and {CHARACTERS} digits and letters",
    text.escape_debug()
)]
pub struct InvalidId {
    text: String,
}

/// A prefix that names no single record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixProblem {
    /// No record has an id that starts with it.
    #[error("no record has an id that starts with `{}`", prefix.escape_debug())]
    Unknown {
        /// As given.
        prefix: String,
    },
    /// Several records have.
    #[error(
        "the ids of {count} records start with `{}`, such as {first} and {second}",
        prefix.escape_debug()
    )]
    Ambiguous {
        /// As given.
        prefix: String,
        /// How many records have such an id.
        count: usize,
        /// The oldest of them.
        first: RecordId,
        /// The second oldest.
        second: RecordId,
    },
    /// It is too short.
    #[error("`{}` is too short for an id: {SHORTEST_PREFIX} characters are needed", prefix.escape_debug())]
    Short {
        /// As given.
        prefix: String,
    },
}

impl RecordId {
    /// A new id. Two calls never return the same id in practice: 35 bits are random.
    pub fn new(kind: RecordKind, at: Timestamp) -> Self {
        let mut random = [0; 8];
        // Without a source of randomness, the time alone has to do; a clash is then found when the
        // record is written.
        let _ = SystemRandom::new().fill(&mut random);
        Self::from_parts(kind, at, u64::from_le_bytes(random))
    }

    /// The id with this time and randomness.
    pub fn from_parts(kind: RecordKind, at: Timestamp, random: u64) -> Self {
        let milliseconds = u64::try_from(at.as_millisecond()).unwrap_or_default();
        let mut text = String::with_capacity(1 + CHARACTERS);
        text.push(kind.letter());
        push_digits(&mut text, milliseconds, TIME_CHARACTERS);
        push_digits(&mut text, random, RANDOM_CHARACTERS);
        Self {
            kind,
            text: text.into(),
        }
    }

    /// What the record is about.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// When the record was made, to the millisecond.
    pub fn made_at(&self) -> Timestamp {
        let digits = self.text.bytes().skip(1).take(TIME_CHARACTERS);
        let milliseconds = digits.fold(0_i64, |value, digit| {
            let position = ALPHABET.iter().position(|it| *it == digit);
            value << 5 | i64::try_from(position.unwrap_or_default()).unwrap_or_default()
        });
        Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The only one of `ids` that starts with `prefix`. Lower-case letters count as upper-case.
    pub fn with_prefix<'a>(
        prefix: &str,
        ids: impl Iterator<Item = &'a Self>,
    ) -> Result<&'a Self, PrefixProblem> {
        let wanted = prefix.to_ascii_uppercase();
        let prefix = prefix.to_owned();
        if wanted.len() < SHORTEST_PREFIX {
            return Err(PrefixProblem::Short { prefix });
        }
        let mut found: Vec<&Self> = ids.filter(|id| id.text.starts_with(&wanted)).collect();
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [] => Err(PrefixProblem::Unknown { prefix }),
            [id] => Ok(id),
            [first, second, ..] => Err(PrefixProblem::Ambiguous {
                prefix,
                count: found.len(),
                first: (*first).clone(),
                second: (*second).clone(),
            }),
        }
    }

    /// The shortest prefix length, at least `at_least`, with which all of these ids differ.
    pub fn distinct_length<'a>(ids: impl Iterator<Item = &'a Self>, at_least: usize) -> usize {
        let mut texts: Vec<&str> = ids.map(|id| &*id.text).collect();
        texts.sort_unstable();
        texts.dedup();
        let pairs = texts.windows(2).map(|pair| {
            let same = pair[0].bytes().zip(pair[1].bytes());
            same.take_while(|(a, b)| a == b).count() + 1
        });
        pairs.max().unwrap_or_default().max(at_least)
    }
}

/// Appends the lowest `5 × count` bits.
fn push_digits(text: &mut String, value: u64, count: usize) {
    for position in (0..count).rev() {
        let digit = value >> (5 * position) & 31;
        let digit = usize::try_from(digit).unwrap_or_default();
        text.push(char::from(ALPHABET[digit]));
    }
}

impl FromStr for RecordId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId { text: text.into() };
        let kind = RecordKind::ALL
            .into_iter()
            .find(|kind| text.starts_with(kind.letter()))
            .ok_or_else(invalid)?;
        let rest = &text.as_bytes()[1..];
        let is_valid = rest.len() == CHARACTERS && rest.iter().all(|c| ALPHABET.contains(c));
        if !is_valid {
            return Err(invalid());
        }
        Ok(Self {
            kind,
            text: text.into(),
        })
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{PrefixProblem, RecordId, RecordKind};

    fn id(kind: RecordKind, milliseconds: i64, random: u64) -> RecordId {
        let at = Timestamp::from_millisecond(milliseconds).unwrap();
        RecordId::from_parts(kind, at, random)
    }

    proptest! {
        #[test]
        fn ids_sort_by_time_and_are_read_back(
            a in 0_i64..(1 << 45), b in 0_i64..(1 << 45), random in any::<[u64; 2]>(),
        ) {
            let [first, second] = [(a, random[0]), (b, random[1])]
                .map(|(at, random)| id(RecordKind::Build, at, random));
            if a != b {
                prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            }
            prop_assert_eq!(first.made_at().as_millisecond(), a);
            prop_assert_eq!(&first.as_str().parse::<RecordId>().unwrap(), &first);
        }
    }

    #[test]
    fn a_text_that_is_no_id_is_refused() {
        let good = id(RecordKind::Event, 1, 2);
        for text in ["", "B", "X00000000000000000", "B0000000000000000I", "Bé0"] {
            assert!(text.parse::<RecordId>().is_err(), "{text}");
        }
        assert!(format!("{good}0").parse::<RecordId>().is_err());
        assert!(good.as_str().to_lowercase().parse::<RecordId>().is_err());
    }

    #[test]
    fn a_prefix_names_one_record_or_says_why_not() {
        let ids = [
            id(RecordKind::Build, 1 << 40, 0),
            id(RecordKind::Build, 1 << 40, 1),
            id(RecordKind::Release, 1 << 40, 0),
        ];
        let find = |prefix: &str| RecordId::with_prefix(prefix, ids.iter());
        assert_eq!(find("r100").unwrap(), &ids[2]);
        assert_eq!(find(&ids[1].to_string()).unwrap(), &ids[1]);
        assert!(matches!(find("R10"), Err(PrefixProblem::Short { .. })));
        assert!(matches!(find("B999"), Err(PrefixProblem::Unknown { .. })));
        let Err(PrefixProblem::Ambiguous { count, first, .. }) = find("B100") else {
            panic!("two ids start with it");
        };
        assert_eq!((count, &first), (2, &ids[0]));
        assert_eq!(RecordId::distinct_length(ids.iter(), 10), 17);
        assert_eq!(RecordId::distinct_length(ids[1..].iter(), 10), 10);
    }

    #[test]
    fn new_ids_differ() {
        let at = Timestamp::now();
        let ids = (0..1000).map(|_| RecordId::new(RecordKind::Event, at));
        let ids: std::collections::BTreeSet<_> = ids.collect();
        assert_eq!(ids.len(), 1000);
    }
}
