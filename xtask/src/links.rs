//! Relative links of the Markdown documents lead somewhere. Links into the net are not followed.

use std::fs;
use std::path::Path;

use crate::steps::root;
use crate::tidy::files_below;

/// All dead links, one sentence each.
pub(crate) fn check() -> Result<(), Vec<String>> {
    let root = root();
    let mut complaints = Vec::new();
    for path in files_below(&root) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => {
                complaints.extend(
                    dead_links(&path, &text).map(|target| format!("{shown}: no such place: {target}")),
                );
            }
            Err(error) => complaints.push(format!("{shown}: {error}")),
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

fn dead_links<'a>(path: &'a Path, text: &'a str) -> impl Iterator<Item = String> + 'a {
    links(text).into_iter().filter(move |target| !leads_somewhere(path, text, target))
}

fn leads_somewhere(path: &Path, text: &str, target: &str) -> bool {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let (found, other);
    let text = if file.is_empty() {
        text
    } else {
        found = path.parent().expect("a file lies in a folder").join(file);
        if !found.exists() {
            return false;
        }
        if !file.ends_with(".md") {
            return true;
        }
        other = fs::read_to_string(&found).unwrap_or_default();
        &other
    };
    anchor.is_none_or(|anchor| {
        prose(text).iter().any(|line| heading_anchor(line).is_some_and(|own| own == anchor))
    })
}

/// Targets of `[text](target)` outside of code, without those that name a scheme.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let mut code = false;
        // Odd pieces between backticks are code.
        for piece in line.split('`') {
            if !code {
                found.extend(
                    piece.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to),
                );
            }
            code = !code;
        }
    }
    let ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    found
        .into_iter()
        .filter(ours)
        .map(|target| target.split(' ').next().unwrap_or(target).to_string())
        .collect()
}

/// The lines outside of fenced code.
fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines
}

/// The anchor that forges make of a heading: lower case, blanks to dashes, other punctuation dropped.
fn heading_anchor(line: &str) -> Option<String> {
    let title = line.trim_start_matches('#');
    if title.len() == line.len() || !title.starts_with(' ') {
        return None;
    }
    let kept = title.trim().to_lowercase();
    Some(
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_only() {
        let text =
            "[a](b.md) `[c](d.md)` [e](f.md#g)\n```\n[h](i)\n```\n[j](https://k) ![l](m.svg \"title\")\n";
        assert_eq!(links(text), ["b.md", "f.md#g", "m.svg"]);
    }

    #[test]
    fn a_dead_link_or_anchor_is_reported() {
        let path = root().join("xtask/notes.md");
        let text = "# The `one` heading, here\n[](#the-one-heading-here) [](#other) [](Cargo.toml) [](nothing.toml)\n";
        assert_eq!(dead_links(&path, text).collect::<Vec<_>>(), ["#other", "nothing.toml"]);
    }
}
