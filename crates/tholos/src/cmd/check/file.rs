//! Histories in files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use tholos_check::{HISTORY_HEADER, Operation, read_operation, write_operation};

use crate::failure::{Exit, Failure};

pub(super) fn write(path: &Path, operations: &[Operation]) -> Result<(), Failure> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{HISTORY_HEADER}")?;
        writeln!(file, "# client, called, returned (nanoseconds of the run), key, command, outcome")?;
        let mut line = String::new();
        for operation in operations {
            line.clear();
            write_operation(operation, &mut line);
            file.write_all(line.as_bytes())?;
        }
        file.into_inner()?.sync_all()
    };
    write().map_err(|error| {
        let what = format!("cannot write {}", path.display());
        Failure::new(Exit::NotSo, what, error, "choose another file with --history")
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<Operation>, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        let what = format!("cannot read {}", path.display());
        Failure::new(Exit::Usage, what, why, "give a file that tholos check --history wrote")
    };
    let file = BufReader::new(File::open(path).map_err(|error| failed(&error))?);
    let mut operations = Vec::new();
    let mut headed = false;
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(|error| failed(&error))?;
        if !headed && line != HISTORY_HEADER {
            return Err(failed(&format!("it does not begin with \"{HISTORY_HEADER}\"")));
        }
        headed = true;
        match read_operation(&line) {
            Ok(operation) => operations.extend(operation),
            Err(error) => return Err(failed(&format!("line {}: {error}", number + 1))),
        }
    }
    if operations.is_empty() {
        return Err(failed(&"it holds no operation"));
    }
    Ok(operations)
}
