//! Other programs: run, watched or asked.

use std::env;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail};

/// Runs a program on this terminal and expects it to succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("  $ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// What a program prints, which it must do without failing.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", shown(command), output.status, errors.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {}", shown(command)))
}

/// Runs a program, prints every line of its output and of its errors as they come, and hands each
/// over, without colours, to `see`.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("  $ {}", shown(command));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.with_context(|| format!("cannot start {}", shown(command)))?;
    let (sender, lines) = mpsc::sync_channel(64);
    thread::scope(|scope| {
        let output = child.stdout.take().expect("stdout was piped");
        let errors = child.stderr.take().expect("stderr was piped");
        let for_errors = sender.clone();
        scope.spawn(move || forward(output, &sender));
        scope.spawn(move || forward(errors, &for_errors));
        for line in lines {
            println!("{line}");
            see(&without_colours(&line));
        }
    });
    child.wait().context("waiting for a child")
}

fn forward(stream: impl Read, lines: &mpsc::SyncSender<String>) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        if lines.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
            return;
        }
    }
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // An escape sequence ends with its first letter.
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// Where a program is, also among those for administrators.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let for_administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = env::split_paths(&path).chain(for_administrators);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// As one would type it, without the folder of the program.
pub(crate) fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    [name].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_seen_without_colours_and_the_status_is_told() {
        let mut lines = Vec::new();
        let script = r"printf 'out\n\033[32;1mgreen\033[0m end\n'; printf 'err' >&2; exit 3";
        let status = watch(Command::new("sh").args(["-c", script]), |l| lines.push(l.to_owned()));
        lines.sort();
        assert_eq!(lines, ["err", "green end", "out"]);
        assert_eq!(status.expect("sh starts").code(), Some(3));
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).map(|_| ());
        let error = error.expect_err("it exits with 1").to_string();
        assert!(error.contains("exit status: 1") && error.ends_with("why"), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).expect_err("not there");
        assert!(format!("{error:#}").starts_with("cannot start program"), "{error:#}");
    }

    #[test]
    fn a_program_for_administrators_is_found_without_its_folder_in_the_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
