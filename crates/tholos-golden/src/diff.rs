//! The difference of two texts by lines, for the message of a failed script.

/// Equal lines shown around a change.
const CONTEXT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    Gone,
    New,
}

/// Lines of `old` that are gone with `-`, lines of `new` with `+`, equal ones with a blank and only near a change.
/// Numbers are of the new text, so that they hold after a rewrite.
pub(crate) fn lines(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let marked = align(&old, &new);
    let near = |i: usize| {
        let from = i.saturating_sub(CONTEXT);
        let to = (i + CONTEXT + 1).min(marked.len());
        marked[from..to].iter().any(|(mark, _)| *mark != Mark::Same)
    };
    let mut text = String::new();
    let mut number = 0;
    let mut skipping = false;
    for (i, (mark, line)) in marked.iter().enumerate() {
        if *mark != Mark::Gone {
            number += 1;
        }
        if !near(i) {
            skipping = true;
            continue;
        }
        if std::mem::take(&mut skipping) {
            text.push_str("  ...\n");
        }
        match mark {
            Mark::Same => text.push_str(&format!("  {number:4}  {line}\n")),
            Mark::Gone => text.push_str(&format!("-       {line}\n")),
            Mark::New => text.push_str(&format!("+ {number:4}  {line}\n")),
        }
    }
    text
}

/// Longest common subsequence over what is left after equal heads and tails; quadratic there, which scripts of a
/// few hundred lines allow.
fn align<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Mark, &'a str)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);

    // common[i][j]: length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let mut marked: Vec<(Mark, &str)> = old[..head].iter().map(|line| (Mark::Same, *line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            marked.push((Mark::Same, a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            marked.push((Mark::Gone, a[i]));
            i += 1;
        } else {
            marked.push((Mark::New, b[j]));
            j += 1;
        }
    }
    marked.extend(old[old.len() - tail..].iter().map(|line| (Mark::Same, *line)));
    marked
}
