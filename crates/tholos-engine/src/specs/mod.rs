//! The entries of the command table, by family, joined here into one sorted list.

mod containers;
mod keys;
mod server;
mod string;

use crate::table::{Categories, Flags, KeyPositions, Spec};

const COUNT: usize = keys::SPECS.len() + server::SPECS.len() + string::SPECS.len();

/// Every command, sorted by name.
pub(crate) static ALL: &[Spec] = &JOINED;

static JOINED: [Spec; COUNT] = joined();

impl Spec {
    /// What entries leave out.
    pub(crate) const EMPTY: Spec = Spec {
        name: "",
        arity: 0,
        flags: Flags(0),
        keys: KeyPositions { first: 0, last: 0, step: 0 },
        key_specs: &[],
        categories: Categories::NONE,
        tips: &[],
        group: "",
        since: "",
        summary: "",
        complexity: "",
        syntax: "",
        subcommands: &[],
        parser: None,
    };
}

/// Joins the families and sorts by insertion, while compiling.
const fn joined() -> [Spec; COUNT] {
    let families = [keys::SPECS, server::SPECS, string::SPECS];
    let mut all = [Spec::EMPTY; COUNT];
    let (mut family, mut filled) = (0, 0);
    while family < families.len() {
        let mut at = 0;
        while at < families[family].len() {
            let spec = families[family][at];
            let mut place = filled;
            while place > 0 && before(spec.name, all[place - 1].name) {
                all[place] = all[place - 1];
                place -= 1;
            }
            all[place] = spec;
            filled += 1;
            at += 1;
        }
        family += 1;
    }
    all
}

/// `a < b`, bytewise.
const fn before(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    a.len() < b.len()
}
