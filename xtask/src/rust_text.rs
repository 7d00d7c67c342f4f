//! Just enough of Rust's grammar to tell code from comments and literals.

/// The text with comments, and the contents of strings and characters, replaced by blanks; lines keep their number.
pub(crate) fn code_only(text: &str) -> String {
    let mut scan = Scan { rest: text, code: String::with_capacity(text.len()) };
    while let Some(c) = scan.rest.chars().next() {
        let after_word = scan.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if scan.rest.starts_with("//") {
            scan.blank(scan.rest.find('\n').unwrap_or(scan.rest.len()));
        } else if scan.rest.starts_with("/*") {
            scan.blank(block_comment_length(scan.rest));
        } else if let Some(hashes) = raw_string_hashes(scan.rest).filter(|_| !after_word) {
            scan.blank(raw_string_length(scan.rest, hashes));
        } else if c == '"' {
            scan.blank(quoted_length(scan.rest, '"'));
        } else if c == '\'' && is_character(scan.rest) {
            scan.blank(quoted_length(scan.rest, '\''));
        } else {
            scan.code.push(c);
            scan.rest = &scan.rest[c.len_utf8()..];
        }
    }
    scan.code
}

struct Scan<'a> {
    rest: &'a str,
    code: String,
}

impl Scan<'_> {
    fn blank(&mut self, length: usize) {
        let (gone, rest) = self.rest.split_at(length);
        self.code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// Block comments nest in Rust.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// How many hashes a raw string has that starts here (`r"`, `br#"`).
fn raw_string_hashes(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

fn raw_string_length(text: &str, hashes: usize) -> usize {
    let open = text.find('"').map_or(text.len(), |at| at + 1);
    let close = format!("\"{}", "#".repeat(hashes));
    text[open..].find(&close).map_or(text.len(), |at| open + at + close.len())
}

/// Length with both quotes; a backslash takes the next character with it.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// `'a'` and `'\n'` are characters, `'a` in `&'a str` is a lifetime.
fn is_character(text: &str) -> bool {
    let mut following = text.chars().skip(1);
    match following.next() {
        Some('\\') => true,
        Some(_) => following.next() == Some('\''),
        None => false,
    }
}

/// The words of an identifier, in lower case: `AcceptedIndex` and `accepted_index` are `accepted`, `index`.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous_lower = false;
    for c in identifier.chars() {
        let starts = c.is_uppercase() && previous_lower;
        if c == '_' {
            previous_lower = false;
            words.push(String::new());
            continue;
        }
        if starts || words.is_empty() {
            words.push(String::new());
        }
        words.last_mut().expect("one was pushed").extend(c.to_lowercase());
        previous_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The identifiers of one line of code.
pub(crate) fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count(), "{code:?}");
        assert_eq!(code.lines().flat_map(identifiers).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("a // b\nc /* d /* e */ f\n */ g", &["a", "c", "g"]);
        check(r#"let s = "x \" y"; t"#, &["let", "s", "t"]);
        check("r#\"a \" b\"# c br\"d\" e", &["c", "e"]);
        check("fn f<'a>(c: &'a str) { 'x'; '\\''; b'y'; z }", &["fn", "f", "a", "c", "a", "str", "b", "z"]);
        check("bar\"x\" 'q", &["bar", "q"]);
    }

    #[test]
    fn identifiers_have_words() {
        assert_eq!(words("AcceptedIndex"), ["accepted", "index"]);
        assert_eq!(words("__commit_IDX"), ["commit", "idx"]);
        assert_eq!(words("Crc16Table"), ["crc16", "table"]);
        assert_eq!(words("SLOT_COUNT"), ["slot", "count"]);
    }
}
