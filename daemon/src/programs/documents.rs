//! Manual pages and completions, made from the options that the programs really have.
//!
//! `cargo xtask install` has them written by the `mxctl` that it has just built.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{arbiter, ctl, debug, fsck, mkfs, mount, mxd};

/// Shells, with the folder of their completions.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

/// A program, and whether people type its name.
fn programs() -> [(Command, bool); 8] {
    [
        (ctl::Options::command(), true),
        (mxd::Options::command(), true),
        (arbiter::Options::command(), true),
        (mkfs::Options::command(), true),
        (fsck::Options::command(), true),
        (debug::Options::command(), true),
        (mount::Options::command(), false),
        (mount::unmount::Options::command(), false),
    ]
}

/// Writes `man/NAME.8` and `completions/SHELL/*` below a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    for (mut command, is_typed) in programs() {
        let name = command.get_name().to_owned();
        let mut page = File::create(man.join(format!("{name}.8")))?;
        // A manual has one page for a program, not one for each of its commands.
        let alone = command.clone().disable_help_subcommand(true);
        let alone = alone.mut_subcommands(|sub| sub.hide(true));
        Man::new(alone).section("8").manual("MatrixFS").render(&mut page)?;
        page.write_all(commands_section(&command).as_bytes())?;
        for (shell, at) in SHELLS.iter().filter(|_| is_typed) {
            let at = folder.join("completions").join(at);
            fs::create_dir_all(&at)?;
            clap_complete::generate_to(*shell, &mut command, &name, at)?;
        }
    }
    Ok(())
}

/// What the commands of a program take, in the language of man(7).
fn commands_section(command: &Command) -> String {
    let mut section = String::new();
    describe(command, "", &mut section);
    if section.is_empty() { section } else { format!(".SH COMMANDS\n{section}") }
}

fn describe(command: &Command, before: &str, section: &mut String) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{before}{}", sub.get_name());
        if sub.has_subcommands() {
            describe(sub, &format!("{name} "), section);
            continue;
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        section.push_str(&format!(".TP\n\\fB{}\\fR\n{}.\n", escaped(&name), escaped(&about)));
        for argument in sub.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let long = escaped(&format!("--{long}"));
            section.push_str(&format!(".br\n\\fB{long}\\fR: {}.\n", escaped(&help)));
        }
    }
}

/// Nothing of it is taken for a request or a mark of man(7).
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\n', " ");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_page_and_those_that_are_typed_have_completions() {
        let folder = std::env::temp_dir().join(format!("mx-documents-{}", std::process::id()));
        write(&folder).expect("a folder of ours");
        let page = |name: &str| fs::read_to_string(folder.join("man").join(name));
        let ctl = page("mxctl.8").expect("it was written");
        assert!(ctl.contains("\\fBlock dump\\fR\nLocks that this node has cached"), "{ctl}");
        assert!(!ctl.contains("documents"), "{ctl}");
        assert!(page("umount.fuse.matrixfs.8").is_ok());
        for at in ["bash/mkfs.matrixfs.bash", "zsh/_mxctl", "fish/mxd.fish"] {
            assert!(folder.join("completions").join(at).is_file(), "{at}");
        }
        fs::remove_dir_all(folder).expect("a folder of ours");
    }

    #[test]
    fn the_options_of_every_program_are_in_order() {
        for (command, _) in programs() {
            command.debug_assert();
        }
    }
}
