use super::*;

/// Runs `text` with a handler that knows a few commands, and returns the rewritten script or the parse error.
fn rewrite(text: &str) -> Result<String, String> {
    let mut counter = 0u64;
    let mut handler = |command: &Command| {
        let mut args = command.consume();
        let output = match command.name.as_str() {
            "echo" => args.rest().join(" "),
            "count" => {
                counter += args.lookup("by")?.unwrap_or(1);
                counter.to_string()
            }
            "silent" => String::new(),
            "need" => args.next::<u8>("a small number")?.to_string(),
            other => return Err(format!("unknown command {other}")),
        };
        args.finish()?;
        Ok(output)
    };
    Ok(Script::parse(text)?.rewrite(&mut handler))
}

/// The script must rewrite to `expected`, and that to itself (G3).
fn check(text: &str, expected: &str) {
    assert_eq!(rewrite(text).as_deref(), Ok(expected));
    assert_eq!(rewrite(expected).as_deref(), Ok(expected), "a rewrite is no fixed point");
}

#[test]
fn prose_and_commands_survive_a_rewrite() {
    check(
        "About counting.\n\n  > not a command\n>neither\n\n> count\n> count by=41\n---\n7\n\n--- prose again\n",
        "About counting.\n\n  > not a command\n>neither\n\n> count\n> count by=41\n---\n1\n42\n\n--- prose again\n",
    );
}

#[test]
fn a_block_without_output_shows_ok() {
    check("> silent\n---\nold\nlines\n", "> silent\n---\nok\n");
}

#[test]
fn a_missing_separator_is_added() {
    check("> count\n\nProse.\n", "> count\n---\n1\n\nProse.\n");
}

#[test]
fn empty_output_lines_are_written_so_that_they_do_not_end_the_block() {
    check("> echo \"a\\n\\n\\\\b\"\n", "> echo \"a\\n\\n\\\\b\"\n---\na\n\\\n\\\\b\n");
}

#[test]
fn errors_are_output() {
    check(
        "> nonsense\n> need\n> need 300\n> count bye=3\n",
        "> nonsense\n> need\n> need 300\n> count bye=3\n---\nerror: unknown command nonsense\n\
         error: need wants a small number\n\
         error: need: a small number \"300\": number too large to fit in target type\n\
         error: count does not know the argument bye=3\n",
    );
}

#[test]
fn a_script_without_a_command_is_refused() {
    assert!(rewrite("Only prose.\n").unwrap_err().contains("no command"));
    assert!(rewrite("").unwrap_err().contains("no command"));
}

#[test]
fn malformed_commands_name_their_line() {
    assert_eq!(rewrite("x\n>\n").unwrap_err(), "line 2: a command line without a command");
    assert!(rewrite("> echo \"open\n").unwrap_err().starts_with("line 1: a quote is not closed"));
    assert!(rewrite("> a=b\n").unwrap_err().contains("starts with a name"));
    assert!(rewrite("> echo \"\\q\"\n").unwrap_err().contains("unknown escape"));
    assert!(rewrite("> echo \"\\x8f\"\n").unwrap_err().contains("hex digits"));
}

#[test]
fn arguments_are_keys_values_and_quoted_text() {
    let command = Command::parse("put k=\"a b\" plain =odd k2=x=y \"q=1\" \"\"", 3).unwrap();
    let pairs: Vec<(Option<&str>, &str)> =
        command.args.iter().map(|argument| (argument.key.as_deref(), argument.value.as_str())).collect();
    assert_eq!(
        pairs,
        [(Some("k"), "a b"), (None, "plain"), (None, "=odd"), (Some("k2"), "x=y"), (None, "q=1"), (None, "")]
    );
    assert_eq!((command.name.as_str(), command.line), ("put", 3));
}

#[test]
fn the_difference_shows_both_sides_and_little_else() {
    let old: String = (0..20).map(|i| format!("line {i}\n")).collect();
    let new = old.replace("line 10\n", "line ten\nline ten and a half\n");
    let shown = diff::lines(&old, &new);
    assert!(shown.contains("-       line 10\n+   11  line ten\n+   12  line ten and a half\n"), "{shown}");
    assert!(shown.contains("line 7\n") && !shown.contains("line 6\n"), "{shown}");
    assert!(shown.contains("line 13\n") && !shown.contains("line 14\n"), "{shown}");
}

#[test]
fn a_difference_fails_unless_an_update_was_asked_for() {
    let path = std::env::temp_dir().join(format!("tholos-golden-{}-update", std::process::id()));
    fs::write(&path, "> go\n---\nold\n").unwrap();
    let mut handler = |_: &Command| Ok("new".to_string());
    let message = check_file(&path, &mut handler, false).unwrap_err();
    assert!(message.contains("-       old\n+    3  new"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "> go\n---\nold\n");
    check_file(&path, &mut handler, true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "> go\n---\nnew\n");
    check_file(&path, &mut handler, false).unwrap();
    fs::remove_file(&path).unwrap();
}

#[test]
#[should_panic(expected = "has no script")]
fn an_empty_folder_fails() {
    let dir = std::env::temp_dir().join(format!("tholos-golden-{}-empty", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    run_dir(&dir, || |_: &Command| Ok(String::new()));
}
