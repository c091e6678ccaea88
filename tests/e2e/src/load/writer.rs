//! The program `mx-load`: carries out the operations of one writer, each made durable, until its
//! standard input is closed.
//!
//! `mx-load MIX MOUNT WRITER PAUSE_MS`

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::mail;
use super::step::{FOLDER, LOG, Mix, Step};
use super::step::{contents, first_name, other_beginning, record, second_name};

/// Runs until standard input is closed or an operation fails.
///
/// # Errors
/// For wrong usage, and when nobody listens.
pub fn run(args: &[String], out: &mut impl Write) -> Result<()> {
    let [mix, mount, writer, pause] = args else {
        bail!("usage: mx-load MIX MOUNT WRITER PAUSE_MS");
    };
    let mix: Mix = mix.parse().map_err(anyhow::Error::msg)?;
    let pause = Duration::from_millis(pause.parse().context("PAUSE_MS")?);
    let mut worker = Worker {
        writer: writer.parse().context("WRITER")?,
        folder: Path::new(mount).join(FOLDER),
        log: None,
        log_path: Path::new(mount).join(LOG),
        mail: Path::new(mount).join(mail::FOLDER),
    };
    let stop = stop_at_end_of_input();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        writeln!(out, "try {number}")?;
        out.flush()?;
        if let Err(error) = worker.carry_out(mix.step(number)) {
            writeln!(out, "fail {number} {error}")?;
            return Ok(());
        }
        writeln!(out, "ack {number}")?;
        out.flush()?;
        number += 1;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(())
}

fn stop_at_end_of_input() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    stop
}

struct Worker {
    writer: u32,
    folder: PathBuf,
    log: Option<File>,
    log_path: PathBuf,
    mail: PathBuf,
}

impl Worker {
    /// Does it and makes it durable.
    fn carry_out(&mut self, step: Step) -> io::Result<()> {
        let writer = self.writer;
        let first = |file| self.folder.join(first_name(writer, file));
        let second = |file| self.folder.join(second_name(writer, file));
        match step {
            Step::Append(number) => {
                let log = match self.log.take() {
                    Some(log) => log,
                    None => OpenOptions::new().append(true).create(true).open(&self.log_path)?,
                };
                // One write(2): a record is whole or not there.
                let bytes = record(writer, number);
                let count = (&log).write(&bytes)?;
                if count != bytes.len() {
                    return Err(io::Error::other(format!("only {count} bytes were written")));
                }
                log.sync_data()?;
                self.log = Some(log);
                Ok(())
            }
            Step::Deliver(number) => {
                if number == 0 {
                    mail::prepare(&self.mail)?;
                }
                mail::deliver(&self.mail, writer, number)
            }
            Step::Create(file) => {
                let created = OpenOptions::new().write(true).create_new(true).open(first(file))?;
                (&created).write_all(&contents(writer, file))?;
                created.sync_all()?;
                self.sync_folder()
            }
            Step::Rename(file) => {
                fs::rename(first(file), second(file))?;
                self.sync_folder()
            }
            Step::Unlink(file) => {
                fs::remove_file(first(file))?;
                self.sync_folder()
            }
            Step::Overwrite(file) => {
                let opened = OpenOptions::new().write(true).open(second(file))?;
                opened.write_all_at(&other_beginning(writer, file), 0)?;
                opened.sync_data()
            }
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}
