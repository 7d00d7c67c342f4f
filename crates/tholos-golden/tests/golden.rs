//! The runner on scripts of its own.

use tholos_golden::Command;

#[test]
fn scripts() {
    tholos_golden::run_dir("tests/golden", || {
        let mut sum = 0u64;
        move |command: &Command| {
            let mut args = command.consume();
            let number: u64 = match command.name.as_str() {
                "add" => args.next("a number")?,
                other => return Err(format!("unknown command {other}")),
            };
            args.finish()?;
            sum += number;
            Ok(format!("sum {sum}"))
        }
    });
}
