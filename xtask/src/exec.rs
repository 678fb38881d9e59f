//! Running other programs: every failure names the command that failed.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// The command as one would type it, for messages.
pub fn describe(cmd: &Command) -> String {
    std::iter::once(cmd.get_program())
        .chain(cmd.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| quote(&word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Quotes `word` for a POSIX shell; words of harmless characters stay as they are.
pub fn quote(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs `cmd` with our own stdin, stdout and stderr; non-zero exit is an error.
pub fn run(cmd: &mut Command) -> Result<()> {
    let status = status(cmd)?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(cmd));
    }
    Ok(())
}

/// Runs `cmd` with our own stdin, stdout and stderr and returns how it ended.
pub fn status(cmd: &mut Command) -> Result<ExitStatus> {
    cmd.status().with_context(|| format!("starting `{}`", describe(cmd)))
}

/// Runs `cmd` and returns its standard output; non-zero exit is an error that shows its stderr.
pub fn capture(cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", describe(cmd)))?;
    if !out.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            describe(cmd),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// How many lines of a failed command's output are worth showing.
const TAIL: usize = 40;

/// Runs a long command, handing each line it prints (stdout and stderr together) to `on_line`
/// instead of the terminal. If it fails, the last lines are in the error.
pub fn run_lines(cmd: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let name = describe(cmd);
    let (reader, writer) = std::io::pipe().with_context(|| format!("pipe for `{name}`"))?;
    let mut child = cmd
        .stdin(Stdio::null())
        .stderr(writer.try_clone().with_context(|| format!("pipe for `{name}`"))?)
        .stdout(writer)
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    // The builder keeps the write end open; without this, reading would never end.
    cmd.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = std::collections::VecDeque::with_capacity(TAIL);
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    // 1 MiB a line: build systems do print long ones, and nothing bounds them otherwise.
    while (&mut reader)
        .take(1 << 20)
        .read_until(b'\n', &mut line)
        .with_context(|| format!("reading the output of `{name}`"))?
        > 0
    {
        let text = String::from_utf8_lossy(&line);
        on_line(text.trim_end());
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text.trim_end().to_owned());
        line.clear();
    }
    let status = child.wait().with_context(|| format!("waiting for `{name}`"))?;
    if !status.success() {
        let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
        bail!("`{name}` failed: {status}; its last lines:\n{tail}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME", "a\nb", "ünï", "*"] {
            let echoed = capture(Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word))));
            assert_eq!(echoed.expect("sh runs"), word);
        }
    }

    #[test]
    fn lines_of_both_streams_arrive_and_failure_shows_them() {
        let mut lines = Vec::new();
        let err = run_lines(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), |line| {
            lines.push(line.to_owned())
        })
        .expect_err("exit 3");
        assert_eq!(lines, ["out", "err"]);
        assert!(err.to_string().contains("err"), "{err}");
    }
}
