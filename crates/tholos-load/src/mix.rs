//! Which operations a workload is made of.

use std::fmt;
use std::str::FromStr;

/// A command of the workload. What it may be asked of depends on the key: a *register* takes any value, a *counter*
/// counts, a *log* grows by a part of its own for each `APPEND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET` of any key.
    Get,
    /// `SET` of a register.
    Set,
    /// `INCRBY` of a counter, by 1.
    Incr,
    /// `APPEND` to a log.
    Append,
    /// `DEL` of a register.
    Del,
    /// `SETNX` of a register.
    SetNx,
    /// `GETDEL` of a register.
    GetDel,
    /// `GETSET` of a register.
    GetSet,
}

/// Commands of a workload, with the words by which a mix names them.
pub trait Worded: Copy + PartialEq + 'static {
    /// Every command with its word, in lower case.
    const WORDS: &[(Self, &str)];
}

impl Worded for Action {
    const WORDS: &[(Action, &str)] = &[
        (Action::Get, "get"),
        (Action::Set, "set"),
        (Action::Incr, "incr"),
        (Action::Append, "append"),
        (Action::Del, "del"),
        (Action::SetNx, "setnx"),
        (Action::GetDel, "getdel"),
        (Action::GetSet, "getset"),
    ];
}

/// A share of one command, at most.
const SHARE_MAX: u32 = 1_000_000;

/// Commands with their shares, written `get=80,set=20`. A command without a share has 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix<C = Action> {
    shares: Vec<(C, u32)>,
    total: u32,
}

impl<C: Worded> Mix<C> {
    /// The command for a random number.
    #[must_use]
    pub fn pick(&self, random: u64) -> C {
        let mut rest = u32::try_from(random % u64::from(self.total)).expect("below a number of 32 bits");
        for &(action, share) in &self.shares {
            if rest < share {
                return action;
            }
            rest -= share;
        }
        unreachable!("the shares add up to {}", self.total)
    }

    /// Whether the command occurs.
    #[must_use]
    pub fn has(&self, wanted: C) -> bool {
        self.shares.iter().any(|&(action, share)| action == wanted && share > 0)
    }
}

impl Default for Mix {
    fn default() -> Self {
        "get=36,set=22,incr=16,append=8,setnx=5,getset=5,del=5,getdel=3".parse().expect("a mix of ours")
    }
}

impl<C: Worded> FromStr for Mix<C> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares: Vec<(C, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.split_once('=').unwrap_or((part, "100"));
            let known = C::WORDS.iter().find(|(_, word)| name.trim().eq_ignore_ascii_case(word));
            let (action, _) = *known.ok_or_else(|| {
                let words: Vec<&str> = C::WORDS.iter().map(|(_, word)| *word).collect();
                format!("\"{name}\" is none of {}", words.join(", "))
            })?;
            let share = share.trim().parse::<u32>().ok().filter(|share| *share <= SHARE_MAX);
            let share = share
                .ok_or_else(|| format!("\"{part}\" has no share from 0 to {SHARE_MAX}, such as get=80"))?;
            shares.push((action, share));
        }
        let total = shares.iter().map(|(_, share)| share).sum();
        if total == 0 { Err("all shares are 0".to_owned()) } else { Ok(Mix { shares, total }) }
    }
}

impl<C: Worded> fmt::Display for Mix<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (action, share)) in self.shares.iter().enumerate() {
            let (_, word) = C::WORDS.iter().find(|(other, _)| other == action).expect("each has its word");
            write!(f, "{}{word}={share}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_printed_and_picked_by_its_shares() {
        let mix: Mix = "GET=75, set=25".parse().unwrap();
        assert_eq!(mix.to_string(), "get=75,set=25");
        assert_eq!((0..1000).filter(|&i| mix.pick(i) == Action::Get).count(), 750);
        assert!(mix.has(Action::Set) && !mix.has(Action::Incr));
        assert_eq!("incr".parse::<Mix>().unwrap().pick(7), Action::Incr);
        assert!("fly=1".parse::<Mix>().unwrap_err().contains("get, set"));
        assert!("get=-1".parse::<Mix>().is_err());
        assert!("get=0".parse::<Mix>().is_err());
        let every = Mix::default();
        assert!(Action::WORDS.iter().all(|&(action, _)| every.has(action)), "{every}");
    }
}
