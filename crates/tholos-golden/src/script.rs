//! A script as prose and blocks, and its rewrite with what the commands print.

use crate::command::Command;

const COMMAND_PREFIX: &str = "> ";
const SEPARATOR: &str = "---";

/// A parsed script; the expected output is not kept, because the comparison is of whole texts.
#[derive(Debug)]
pub(crate) struct Script {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// A line kept as it is.
    Prose(String),
    /// Commands that share one output.
    Block(Vec<Command>),
}

impl Script {
    /// Parses a whole file. The error names the line.
    pub(crate) fn parse(text: &str) -> Result<Script, String> {
        let mut parts = Vec::new();
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).peekable();
        while let Some((number, line)) = lines.next() {
            let Some(raw) = command_of(line) else {
                parts.push(Part::Prose(line.to_string()));
                continue;
            };
            let mut commands = vec![parse_command(raw, number)?];
            while let Some((number, raw)) = lines.peek().and_then(|&(n, line)| Some((n, command_of(line)?))) {
                commands.push(parse_command(raw, number)?);
                lines.next();
            }
            // A separator may be missing: that is a new script, which the first rewrite completes.
            if lines.next_if(|&(_, line)| line == SEPARATOR).is_some() {
                while lines.next_if(|&(_, line)| !line.is_empty()).is_some() {}
            }
            parts.push(Part::Block(commands));
        }
        if !parts.iter().any(|part| matches!(part, Part::Block(_))) {
            return Err(format!("it has no command (a line that starts with {COMMAND_PREFIX:?})"));
        }
        Ok(Script { parts })
    }

    /// Runs all commands and returns the script with their output in place of the expected one.
    pub(crate) fn rewrite(&self, handler: &mut dyn FnMut(&Command) -> Result<String, String>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Prose(line) => push_line(&mut text, line),
                Part::Block(commands) => rewrite_block(&mut text, commands, handler),
            }
        }
        text
    }
}

fn command_of(line: &str) -> Option<&str> {
    if line == COMMAND_PREFIX.trim_end() { Some("") } else { line.strip_prefix(COMMAND_PREFIX) }
}

fn parse_command(raw: &str, line: usize) -> Result<Command, String> {
    Command::parse(raw, line).map_err(|error| format!("line {line}: {error}"))
}

fn rewrite_block(
    text: &mut String,
    commands: &[Command],
    handler: &mut dyn FnMut(&Command) -> Result<String, String>,
) {
    for command in commands {
        push_line(text, &format!("{COMMAND_PREFIX}{}", command.raw));
    }
    push_line(text, SEPARATOR);
    let mut silent = true;
    for command in commands {
        let output = handler(command).unwrap_or_else(|error| format!("error: {error}"));
        for line in output.lines() {
            silent = false;
            push_output_line(text, line);
        }
    }
    if silent {
        push_line(text, "ok");
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// An empty line would end the output, so it is written `\`; what begins with `\` gets another (module doc).
fn push_output_line(text: &mut String, line: &str) {
    if line.is_empty() || line.starts_with('\\') {
        text.push('\\');
    }
    push_line(text, line);
}
