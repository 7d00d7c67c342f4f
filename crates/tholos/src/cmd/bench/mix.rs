//! Which commands a load is made of.

use std::fmt;
use std::str::FromStr;

/// A command of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Get,
    Set,
    Incr,
    Append,
    Del,
    Exists,
    Ping,
}

const ALL: [(Command, &str); 7] = [
    (Command::Get, "get"),
    (Command::Set, "set"),
    (Command::Incr, "incr"),
    (Command::Append, "append"),
    (Command::Del, "del"),
    (Command::Exists, "exists"),
    (Command::Ping, "ping"),
];

/// Commands with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mix {
    shares: Vec<(Command, u32)>,
    total: u32,
}

impl Mix {
    /// The command for a random number.
    pub(super) fn pick(&self, random: u64) -> Command {
        let mut rest = (random % u64::from(self.total)) as u32;
        for &(command, share) in &self.shares {
            if rest < share {
                return command;
            }
            rest -= share;
        }
        unreachable!("the shares add up to {}", self.total)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.split_once('=').unwrap_or((part, "100"));
            let (command, _) =
                *ALL.iter().find(|(_, word)| name.trim().eq_ignore_ascii_case(word)).ok_or_else(|| {
                    let words = ALL.map(|(_, word)| word).join(", ");
                    format!("\"{name}\" is none of {words}")
                })?;
            let share = share.trim().parse::<u32>().ok().filter(|share| *share <= 1_000_000);
            let share =
                share.ok_or_else(|| format!("\"{part}\" has no share from 0 to 1000000, such as get=80"))?;
            shares.push((command, share));
        }
        let total = shares.iter().map(|(_, share)| share).sum();
        if total == 0 { Err("all shares are 0".to_owned()) } else { Ok(Mix { shares, total }) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (command, share)) in self.shares.iter().enumerate() {
            let (_, word) = ALL.iter().find(|(other, _)| other == command).expect("ALL has every command");
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
        let gets = (0..1000).filter(|&i| mix.pick(i) == Command::Get).count();
        assert_eq!(gets, 750);
        assert_eq!("incr".parse::<Mix>().unwrap().pick(7), Command::Incr);
        assert!("fly=1".parse::<Mix>().unwrap_err().contains("get, set"));
        assert!("get=-1".parse::<Mix>().is_err());
        assert!("get=0".parse::<Mix>().is_err());
    }
}
