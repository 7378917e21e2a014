//! Long lines of the log as rows of the screen.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Below this width, rows are not indented.
const LEAST_WIDTH: usize = 20;

/// The rows of a line, at least one. Rows after the first one are indented. Paths and addresses stay
/// whole if they fit.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.is_ascii() && text.len() <= width {
        return vec![text.to_owned()];
    }
    let spaces = text.len() - text.trim_start_matches(' ').len();
    let indent = if width < LEAST_WIDTH || spaces + 2 > width / 2 {
        String::new()
    } else {
        " ".repeat(spaces + 2)
    };
    let options = Options::new(width.max(1))
        .subsequent_indent(&indent)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    let rows = textwrap::wrap(text, options);
    rows.into_iter().map(Into::into).collect()
}
