//! `.env` as the JavaScript package `dotenv` reads it: nothing is expanded, so a password with
//! a `$` stays one, and what is no assignment is passed over. The crates for it expand.

/// Names and values in order; a later one wins.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let text = text
        .trim_start_matches('\u{feff}')
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let mut entries = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        let line = &text[at..line_end];
        at = line_end + 1;
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-'));
        let Some((name, tail)) = end.map(|end| line.split_at(end)) else {
            continue;
        };
        let Some(value) = tail
            .trim_start()
            .strip_prefix('=')
            .filter(|_| !name.is_empty())
        else {
            continue;
        };
        let value = value.trim_start();
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\'' | '`'));
        let quoted = quote.and_then(|quote| {
            // A quoted value may go on over further lines.
            let start = line_end - value.len() + 1;
            let end = start + text[start..].find(quote)?;
            Some((quote, start, end))
        });
        let value = match quoted {
            Some((quote, start, end)) => {
                at = text[end..]
                    .find('\n')
                    .map_or(text.len(), |line| end + line + 1);
                let body = &text[start..end];
                if quote == '"' {
                    body.replace("\\n", "\n").replace("\\r", "\r")
                } else {
                    body.to_owned()
                }
            }
            None => value
                .split('#')
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
        };
        entries.push((name.to_owned(), value));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn values_are_what_is_written() {
        let text = "\u{feff}# comment\nA=pa$wordX-$HOME\nexport B = two words # why\nC='#\\n'\r\nD=\"a\\nb\"\nE=`x`\nno assignment\nF=\nG=\"line 1\nline 2\" # rest\nA-B=1\nH=last";
        let got = parse(text);
        let want = [
            ("A", "pa$wordX-$HOME"),
            ("B", "two words"),
            ("C", "#\\n"),
            ("D", "a\nb"),
            ("E", "x"),
            ("F", ""),
            ("G", "line 1\nline 2"),
            ("A-B", "1"),
            ("H", "last"),
        ];
        let want: Vec<_> = want
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(got, want);
        assert_eq!(parse("A='x'"), [("A".into(), "x".into())]);
        assert_eq!(parse("A=it's"), [("A".into(), "it's".into())]);
    }
}
