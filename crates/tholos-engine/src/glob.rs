//! Glob patterns, as KEYS, SCAN and others match them.
//!
//! `*` any bytes, `?` one byte, `[abc]`, `[a-c]`, `[^a]` one byte of a class, `\x` the byte x. The odd corners are
//! those of Redis: a class that is not closed ends with the pattern, a range may stand backwards, `a-]` is a range.
//!
//! Redis tries every way to divide the text among the stars; here only the last star is ever tried again, which
//! finds a match whenever there is one (an earlier star that takes more gives the later one less to choose from).
//! So a match takes at most pattern × text steps, and a budget bounds even that.

use alloc::vec::Vec;

/// Steps of one match, at most; beyond it the text counts as not matching. Only patterns made to be slow come
/// near: it takes a text of 64 KiB whose every byte almost matches 16 bytes of the pattern.
const STEPS_MAX: u32 = 1 << 20;

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
    everything: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `*`; two in a row are one.
    Many,
    /// `?`
    One,
    Byte(u8),
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Part {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Part::Many => false,
            Part::One => true,
            Part::Byte(own) => *own == byte,
            Part::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *negated
            }
        }
    }
}

impl Glob {
    /// Takes a pattern apart; every pattern is valid.
    #[must_use]
    pub fn new(pattern: &[u8]) -> Glob {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let [first, after @ ..] = rest {
            rest = after;
            let part = match (first, after) {
                (b'*', _) if parts.last() == Some(&Part::Many) => continue,
                (b'*', _) => Part::Many,
                (b'?', _) => Part::One,
                (b'[', _) => {
                    let (class, after) = class(after);
                    rest = after;
                    class
                }
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    Part::Byte(*escaped)
                }
                (byte, _) => Part::Byte(*byte),
            };
            parts.push(part);
        }
        Glob { everything: pattern == b"*", parts }
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        // As in Redis, nothing but the empty pattern and a single star matches an empty text.
        if text.is_empty() {
            return self.parts.is_empty();
        }
        let (mut part, mut at) = (0, 0);
        // Where to go on if what follows the last star fails: one byte more for the star.
        let mut retry: Option<(usize, usize)> = None;
        for _ in 0..STEPS_MAX {
            match self.parts.get(part) {
                Some(Part::Many) => {
                    part += 1;
                    retry = Some((part, at));
                    if part == self.parts.len() {
                        return true;
                    }
                    continue;
                }
                Some(one) if at < text.len() && one.accepts(text[at]) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            let Some((after_star, from)) = retry else { return false };
            if from >= text.len() {
                return false;
            }
            (part, at) = (after_star, from + 1);
            retry = Some((after_star, from + 1));
        }
        false
    }
}

/// The class whose `[` has been read, and what follows it.
fn class(pattern: &[u8]) -> (Part, &[u8]) {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        let (range, after) = match rest {
            [b'\\', byte, after @ ..] => ((*byte, *byte), after),
            [b']', after @ ..] => return (Part::Class { negated, ranges }, after),
            [] => return (Part::Class { negated, ranges }, rest),
            [first, b'-', last, after @ ..] => ((*first.min(last), *first.max(last)), after),
            [byte, after @ ..] => ((*byte, *byte), after),
        };
        ranges.push(range);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;
    use std::vec;

    use super::*;

    /// Redis's way: try every division of the text. Exponential, so for short texts only.
    fn slow(parts: &[Part], text: &[u8]) -> bool {
        match (parts, text) {
            ([], _) => text.is_empty(),
            ([Part::Many, rest @ ..], _) => (0..=text.len()).any(|from| slow(rest, &text[from..])),
            ([_, ..], []) => false,
            ([part, rest @ ..], [byte, after @ ..]) => part.accepts(*byte) && slow(rest, after),
        }
    }

    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let glob = Glob::new(pattern.as_bytes());
        for text in matching {
            assert!(glob.matches(text.as_bytes()), "{pattern:?} should match {text:?}");
        }
        for text in others {
            assert!(!glob.matches(text.as_bytes()), "{pattern:?} should not match {text:?}");
        }
    }

    #[test]
    fn patterns_match_as_in_redis() {
        check("h?llo", &["hello", "hallo"], &["hllo", "heello", "hello!"]);
        check("h*llo", &["hllo", "heeeello", "hllollo"], &["hell", "xhllo"]);
        check("h[ae]llo", &["hello", "hallo"], &["hillo"]);
        check("h[^e]llo", &["hallo", "hbllo"], &["hello"]);
        check("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]);
        check("h[b-a]llo", &["hallo", "hbllo"], &["hcllo"]);
        check("a\\*b", &["a*b"], &["axb"]);
        check("a\\", &["a\\"], &["a"]);
        check("[\\]]", &["]"], &["\\"]);
        check("[\\", &["\\"], &["x"]);
        check("[a", &["a"], &["b", "[a"]);
        check("[", &[], &["[", "a"]);
        check("[^", &["a", "["], &["ab"]);
        check("[]", &[], &["a", "]"]);
        check("[a-]", &["]", "a", "^"], &["-", "b"]);
        check("[a-", &["a", "-"], &["b"]);
        check("*", &["", "a"], &[]);
        check("**", &["a"], &[""]);
        check("", &[""], &["a"]);
        check("*a*", &["a", "xax"], &["", "xx"]);
        check("a*b*c", &["abc", "aXbXc", "abbcc"], &["abcd", "acb"]);
    }

    #[test]
    fn all_short_patterns_match_as_the_slow_way_does() {
        let letters = b"ab*?";
        let mut patterns: Vec<Vec<u8>> = vec![vec![]];
        for length in 0..5 {
            let longer: Vec<Vec<u8>> = patterns
                .iter()
                .filter(|pattern| pattern.len() == length)
                .flat_map(|pattern| letters.map(|letter| [&pattern[..], &[letter]].concat()))
                .collect();
            patterns.extend(longer);
        }
        for pattern in &patterns {
            let glob = Glob::new(pattern);
            for bits in 0..64_u32 {
                for length in 1..6 {
                    let text: Vec<u8> =
                        (0..length).map(|bit| if bits >> bit & 1 == 0 { b'a' } else { b'b' }).collect();
                    assert_eq!(glob.matches(&text), slow(&glob.parts, &text), "{pattern:?} {text:?}");
                }
            }
        }
    }

    #[test]
    fn hostile_patterns_take_bounded_time() {
        let text = [b'a'; 65_536];
        let stars = b"a*".repeat(1000);
        assert!(!Glob::new(&[&stars[..], b"b"].concat()).matches(&text));
        assert!(Glob::new(&[&stars[..], b"a"].concat()).matches(&text));
        // More than the budget: counts as no match, though it is one.
        let near = [b'a'; 40];
        let late = [&text[..], b"b"].concat();
        assert!(!Glob::new(&[b"*", &near[..], b"b"].concat()).matches(&late));
        assert!(Glob::new(&[b"*", &near[..8], b"b"].concat()).matches(&late));
    }
}
