//! Long output, shown as by git: with colours and a pager on a terminal, plain elsewhere.

use std::path::Path;

use super::answer_bytes;
use super::environment::{self, Display};
use crate::compare::{PatchLine, PatchLineKind};
use crate::error::Error as AnyError;
use crate::git::Repository;

/// The colours of git.
const BOLD: &str = "\x1b[1m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const END: &str = "\x1b[m";

/// A long output.
pub struct Page {
    text: Vec<u8>,
    display: Display,
}

impl Page {
    /// An empty page for the current screen.
    pub fn new(project: &Path) -> Self {
        let repository = Repository::around(project).ok().flatten();
        let setting = |name: &str| repository.as_ref()?.setting(name);
        Self {
            text: Vec::new(),
            display: environment::display(setting),
        }
    }

    /// Adds plain text.
    pub fn plain(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// Adds a paragraph. On a terminal it is wrapped. `indent` stands before the first line, and
    /// the same number of spaces before the others.
    pub fn paragraph(&mut self, indent: &str, text: &str) {
        if environment::is_terminal() {
            let rest = " ".repeat(indent.len());
            let options = textwrap::Options::new(environment::columns())
                .initial_indent(indent)
                .subsequent_indent(&rest)
                .break_words(false)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            self.plain(&textwrap::fill(text, options));
        } else {
            self.plain(indent);
            self.plain(text);
        }
        self.plain("\n");
    }

    /// An empty page that is never shown in a pager: for short output, and above a question.
    pub fn unpaged() -> Self {
        Self {
            text: Vec::new(),
            display: Display {
                pager: None,
                ..environment::display(|_| None)
            },
        }
    }

    /// Adds a row: a coloured label, a name, and a text that is wrapped on a terminal.
    pub fn row(&mut self, label: (PatchLineKind, &str), name: &str, text: &str) {
        let (kind, label) = label;
        self.styled(colour(kind), label.as_bytes());
        let width = label.len() + name.len();
        self.plain(name);
        let mut lines = if environment::is_terminal() {
            let width = environment::columns().saturating_sub(width).max(20);
            let options = textwrap::Options::new(width)
                .break_words(false)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            textwrap::wrap(text, options)
        } else {
            vec![text.into()]
        }
        .into_iter();
        self.plain(&lines.next().unwrap_or_default());
        self.plain("\n");
        for line in lines {
            self.plain(&" ".repeat(width));
            self.plain(&line);
            self.plain("\n");
        }
    }

    /// Adds text in the colour of this kind of line.
    pub fn coloured(&mut self, kind: PatchLineKind, text: &str) {
        self.styled(colour(kind), text.as_bytes());
    }

    /// Adds a title line.
    pub fn title(&mut self, text: &str) {
        self.styled(BOLD, text.as_bytes());
        self.plain("\n");
    }

    /// Adds a patch.
    pub fn patch(&mut self, lines: &[PatchLine]) {
        for line in lines {
            let colour = colour(line.kind);
            // Each line has its own colour codes, since pagers need it.
            for piece in line.text.split_inclusive(|byte| *byte == b'\n') {
                let end = piece.strip_suffix(b"\n").unwrap_or(piece);
                self.styled(colour, end);
                self.text.extend_from_slice(&piece[end.len()..]);
            }
        }
    }

    fn styled(&mut self, colour: &str, text: &[u8]) {
        let coloured = self.display.colour && !text.is_empty();
        let colour = if coloured { colour } else { "" };
        self.plain(colour);
        self.text.extend_from_slice(text);
        if !colour.is_empty() {
            self.plain(END);
        }
    }

    /// Shows the page.
    pub fn show(self) -> Result<(), AnyError> {
        if let Some(pager) = &self.display.pager
            && !self.text.is_empty()
            && environment::page(pager, &self.text)
        {
            return Ok(());
        }
        answer_bytes(&self.text)
    }
}

fn colour(kind: PatchLineKind) -> &'static str {
    match kind {
        PatchLineKind::Header => BOLD,
        PatchLineKind::Hunk => CYAN,
        PatchLineKind::Added => GREEN,
        PatchLineKind::Removed => RED,
        PatchLineKind::Context => "",
    }
}
