//! LCS: the longest common subsequence of two values.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

use super::{VALUE_BYTES_MAX, integer, is_option};
use crate::command::{Command, Kind};
use crate::error;
use crate::session::Reader;
use crate::table::Spec;

/// LCS with its options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lcs {
    pub(crate) keys: [Bytes; 2],
    answer: Answer,
    /// MINMATCHLEN: shorter runs are left out of IDX.
    run_min: i64,
    /// WITHMATCHLEN: each run of IDX says its length.
    with_length: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Text,
    /// LEN.
    Length,
    /// IDX.
    Runs,
}

/// A run of bytes common to both texts: where it starts in each, and its length.
struct Run {
    a: usize,
    b: usize,
    length: usize,
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]`
pub(crate) fn parse(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let (mut length, mut runs, mut with_length, mut run_min) = (false, false, false, 0);
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        if is_option(option, "IDX") {
            runs = true;
        } else if is_option(option, "LEN") {
            length = true;
        } else if is_option(option, "WITHMATCHLEN") {
            with_length = true;
        } else if is_option(option, "MINMATCHLEN")
            && let Some(number) = options.next()
        {
            run_min = integer(number)?;
        } else {
            return Err(error::syntax());
        }
    }
    let answer = match (runs, length) {
        (true, true) => return Err(error::lcs_len_and_idx()),
        (true, false) => Answer::Runs,
        (false, true) => Answer::Length,
        (false, false) => Answer::Text,
    };
    let keys = [args[1].clone(), args[2].clone()];
    Ok(Command(Kind::Lcs(Lcs { keys, answer, run_min, with_length })))
}

impl Lcs {
    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        let [a, b] = self
            .keys
            .each_ref()
            .map(|key| reader.view(key).map(|view| view.content.to_vec()).unwrap_or_default());
        let cells = (a.len() as u64 + 1) * (b.len() as u64 + 1);
        // The work is bounded with the memory, and both by the same limit as in Redis.
        if cells * size_of::<u32>() as u64 > VALUE_BYTES_MAX as u64 {
            return error::lcs_too_large();
        }
        let table = Table::new(&a, &b);
        let length = table.at(a.len(), b.len());
        match self.answer {
            Answer::Length => Value::Integer(i64::from(length)),
            Answer::Text => {
                let runs = table.runs(&a, &b);
                let parts: Vec<&[u8]> = runs.iter().rev().map(|run| &a[run.a..run.a + run.length]).collect();
                Value::bulk(parts.concat())
            }
            Answer::Runs => {
                let runs = table.runs(&a, &b);
                let long = runs.iter().filter(|run| run.length as i64 >= self.run_min);
                let matches = long.map(|run| self.run_reply(run)).collect();
                Value::Map(vec![
                    (Value::bulk("matches"), Value::Array(matches)),
                    (Value::bulk("len"), Value::Integer(i64::from(length))),
                ])
            }
        }
    }

    fn run_reply(&self, run: &Run) -> Value {
        let range = |start: usize| {
            let ends = [start, start + run.length - 1];
            Value::Array(ends.map(|end| Value::Integer(end as i64)).to_vec())
        };
        let mut reply = vec![range(run.a), range(run.b)];
        if self.with_length {
            reply.push(Value::Integer(run.length as i64));
        }
        Value::Array(reply)
    }
}

/// Lengths of the longest common subsequences of all pairs of prefixes.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8]) -> Table {
        let width = b.len() + 1;
        let mut cells = vec![0_u32; (a.len() + 1) * width];
        for (row, byte) in a.iter().enumerate() {
            let (above, below) = cells[row * width..].split_at_mut(width);
            for (column, other) in b.iter().enumerate() {
                below[column + 1] =
                    if byte == other { above[column] + 1 } else { above[column + 1].max(below[column]) };
            }
        }
        Table { cells, width }
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.cells[row * self.width + column]
    }

    /// The runs that make up the subsequence, the last first, as Redis lists them.
    fn runs(&self, a: &[u8], b: &[u8]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut row, mut column) = (a.len(), b.len());
        while row > 0 && column > 0 {
            if a[row - 1] == b[column - 1] {
                row -= 1;
                column -= 1;
                match runs.last_mut() {
                    Some(run) if run.a == row + 1 && run.b == column + 1 => {
                        *run = Run { a: row, b: column, length: run.length + 1 };
                    }
                    _ => runs.push(Run { a: row, b: column, length: 1 }),
                }
            } else if self.at(row - 1, column) > self.at(row, column - 1) {
                row -= 1;
            } else {
                column -= 1;
            }
        }
        runs
    }
}
