//! Whether a result names the store that it was made for: only what does not is another
//! store's result as well.
//!
//! A script learns its store's id from its folder and from its package's name, and from nothing
//! else that is not part of the key. So the outputs are searched for the id and for the unit's
//! name, in any case and as base64 writes them (source maps are written so). An id of fewer
//! than five letters counts where it stands as a word, since `us` is also a part of `status`.

use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// Letters from which on an id counts anywhere, also inside a word.
const DISTINCT: usize = 5;

/// Letters of base64 below which a match says nothing.
const SHORTEST: usize = 8;

/// What a file begins with that cannot be searched: gzip, zip, zstd, xz.
const PACKED: [&[u8]; 4] = [b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"];

/// What is looked for.
#[derive(Debug)]
pub struct Names {
    needles: Option<AhoCorasick>,
    /// Whether each needle counts only as a word.
    as_word: Vec<bool>,
    /// Bytes of the longest needle, with what stands around it.
    longest: usize,
}

impl Names {
    /// Names of one unit: its store's id, its package's name, and the folder that it is
    /// composed into.
    pub fn new(store: &str, unit: &str, folder: &str) -> Self {
        let mut needles = vec![(unit.to_owned(), false), (folder.to_owned(), false)];
        // As identifiers and variables write it too: `shop_07`, `shop07`.
        for between in ["-", "_", ""] {
            let id = store.replace(['-', '_', '.'], between);
            needles.push((id.clone(), id.len() < DISTINCT));
        }
        needles.push((store.to_owned(), store.len() < DISTINCT));
        for name in [unit, folder, store] {
            needles.extend(in_base64(name).map(|text| (text, false)));
        }
        let texts = needles.iter().map(|(text, _)| text);
        Self {
            longest: texts.clone().map(String::len).max().unwrap_or(0) + 8,
            // It fails only for needles of many megabytes.
            needles: AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .build(texts)
                .ok(),
            as_word: needles.iter().map(|(_, as_word)| *as_word).collect(),
        }
    }

    /// Nothing at all: what has no store is everybody's.
    pub fn none() -> Self {
        Self {
            needles: AhoCorasick::new::<_, &str>([]).ok(),
            as_word: Vec::new(),
            longest: 0,
        }
    }

    /// Begins to search one file.
    pub fn scan(&self) -> Scan<'_> {
        Scan {
            names: self,
            window: Vec::new(),
            begins: false,
            found: false,
        }
    }

    /// Whether one is in the text. Where the text goes on, what touches its end is left to
    /// whoever sees more of it.
    fn occur_in(&self, text: &[u8], goes_on: bool) -> bool {
        let Some(needles) = &self.needles else {
            return true;
        };
        needles.find_overlapping_iter(text).any(|found| {
            let (start, end) = (found.start(), found.end());
            if !self.as_word[found.pattern().as_usize()] {
                return true;
            }
            !(goes_on && end == text.len()) && is_word(text, start, end)
        })
    }
}

/// The name as it stands in base64, for each of the three places that it can begin at.
fn in_base64(name: &str) -> impl Iterator<Item = String> {
    (0..3).filter_map(move |before| {
        let text = BASE64.encode([&vec![0; before], name.as_bytes()].concat());
        // Letters that hold bits of what stands before and after are cut off.
        let start = (before * 8).div_ceil(6);
        let end = (before + name.len()) * 8 / 6;
        let inner = text.get(start..end)?;
        (inner.len() >= SHORTEST).then(|| inner.to_owned())
    })
}

/// Whether no word goes on before and after, as people and programs write them: `shopUs`,
/// `shop_us`, `%2Fus`.
fn is_word(text: &[u8], start: usize, end: usize) -> bool {
    let before = match start.checked_sub(1).map(|at| text[at]) {
        None => true,
        Some(sign) if !sign.is_ascii_alphabetic() => true,
        Some(_) if start >= 3 && text[start - 3] == b'%' => true,
        Some(sign) => !sign.is_ascii_uppercase() && text[start].is_ascii_uppercase(),
    };
    let after = match text.get(end) {
        None => true,
        Some(sign) if !sign.is_ascii_alphabetic() => true,
        // `usShop`, and `USShop`, in which the next word's second letter is small.
        Some(sign) if sign.is_ascii_uppercase() => {
            let is_word = text.get(end + 1).is_some_and(u8::is_ascii_lowercase);
            !text[end - 1].is_ascii_uppercase() || is_word
        }
        Some(_) => false,
    };
    before && after
}

/// One file that is being searched, piece by piece.
pub struct Scan<'n> {
    names: &'n Names,
    /// The end of what came before, and the piece.
    window: Vec<u8>,
    /// Whether the next piece is a file's first.
    begins: bool,
    found: bool,
}

impl Scan<'_> {
    /// Searches a text that comes whole.
    pub fn text(&mut self, text: &[u8]) {
        self.found |= self.names.occur_in(text, false);
    }

    /// What comes next is this file's content.
    pub fn begin_file(&mut self, path: &str) {
        self.window.clear();
        self.begins = true;
        // Brotli has no sign of its own.
        self.found |= self.looks() && Path::new(path).extension().is_some_and(|end| end == "br");
    }

    /// Searches the next piece of it.
    pub fn piece(&mut self, piece: &[u8]) {
        if self.found || !self.looks() || piece.is_empty() {
            return;
        }
        if std::mem::take(&mut self.begins) {
            // What cannot be looked into is not known to be free of names.
            self.found = PACKED.iter().any(|magic| piece.starts_with(magic));
        }
        // A word at the window's beginning was seen whole in the window before.
        let keep = self.window.len().min(self.names.longest);
        self.window.drain(..self.window.len() - keep);
        self.window.extend_from_slice(piece);
        self.found |= self.names.occur_in(&self.window, true);
    }

    /// The file has ended.
    pub fn end_file(&mut self) {
        self.found |= self.looks() && self.names.occur_in(&self.window, false);
        self.window.clear();
    }

    /// Whether a name was found.
    pub fn has_found(&self) -> bool {
        self.found
    }

    fn looks(&self) -> bool {
        !self.names.as_word.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    fn finds(names: &Names, text: &str) -> bool {
        let mut whole = names.scan();
        whole.text(text.as_bytes());
        let mut pieces = names.scan();
        pieces.begin_file("x.js");
        for piece in text.as_bytes().chunks(3) {
            pieces.piece(piece);
        }
        pieces.end_file();
        assert_eq!(pieces.has_found(), whole.has_found(), "{text}");
        whole.has_found()
    }

    #[test]
    fn a_short_id_counts_as_a_word() {
        let names = Names::new(
            "us",
            "storefront-middleware-us",
            ".out/us/storefront-middleware",
        );
        for text in [
            "const focus = status;",
            "use",
            "bus",
            "virus1",
            "Use",
            "usa",
            "en-USA",
            "USAGE",
        ] {
            assert!(!finds(&names, text), "{text}");
        }
        for text in [
            "/us/", "\"us\"", "en-US", "shopUs", "shop_us", "%2Fus%2F", "us", "usShop", "Us",
            "us1", "USStore",
        ] {
            assert!(finds(&names, text), "{text}");
        }
        assert!(finds(&names, "xstorefront-middleware-usx"));
    }

    #[test]
    fn a_distinct_id_counts_anywhere() {
        let names = Names::new("outlet", "app-outlet", ".out/outlet/app");
        assert!(finds(&names, "myoutlets") && finds(&names, "OUTLET"));
        assert!(!finds(&names, "out let"));
    }

    #[test]
    fn base64_is_seen_wherever_it_begins() {
        use base64::Engine;
        let names = Names::new(
            "us",
            "storefront-middleware-us",
            ".out/us/storefront-middleware",
        );
        for before in ["", "a", "ab", "abc"] {
            for name in [
                "storefront-middleware-us",
                "p/.out/us/storefront-middleware/src",
            ] {
                let text = format!("{before}{name}/src");
                let text = base64::engine::general_purpose::STANDARD.encode(text);
                assert!(finds(&names, &text), "{before}");
            }
        }
    }

    #[test]
    fn what_is_packed_is_not_known_to_be_free() {
        let names = Names::new("us", "app-us", ".out/us/app");
        let mut scan = names.scan();
        scan.begin_file("a.js.gz");
        scan.piece(b"\x1f\x8b\x08rest");
        assert!(scan.has_found());
        let mut scan = names.scan();
        scan.begin_file("a.js.br");
        assert!(scan.has_found());
        let mut scan = Names::none().scan().has_found();
        scan |= finds(&Names::none(), "us");
        assert!(!scan);
    }
}
