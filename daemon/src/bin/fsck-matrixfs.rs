//! fsck.matrixfs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use mxd::programs::fsck;

fn main() -> ExitCode {
    let options = match fsck::Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { fsck::CLEAN } else { fsck::USAGE });
        }
    };
    match fsck::run(&options) {
        Ok(report) => {
            if options.json {
                match serde_json::to_string(&report) {
                    Ok(json) => println!("{json}"),
                    Err(error) => eprintln!("fsck.matrixfs: {error}"),
                }
            } else {
                println!("{report}");
            }
            ExitCode::from(report.status())
        }
        Err(error) => {
            eprintln!("fsck.matrixfs: {error}");
            ExitCode::from(fsck::FAILED)
        }
    }
}
