//! What is shown while the demo goes on: lines with the time since the start, and on a terminal one
//! line that changes.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Screen {
    start: Instant,
    is_terminal: bool,
    /// Characters of the changing line that is on the screen.
    shown: Cell<usize>,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let is_terminal = std::io::stdout().is_terminal();
        Screen { start: Instant::now(), is_terminal, shown: Cell::new(0) }
    }

    pub(super) fn line(&self, text: &str) {
        self.clear();
        println!("{:7.2} s  {text}", self.start.elapsed().as_secs_f64());
    }

    pub(super) fn heading(&self, text: &str) {
        self.clear();
        println!("\n=== {text}");
    }

    /// Replaces the changing line.
    pub(super) fn progress(&self, text: &str) {
        if !self.is_terminal {
            return;
        }
        self.clear();
        print!("{text}");
        let _ = std::io::stdout().flush();
        self.shown.set(text.chars().count());
    }

    fn clear(&self) {
        let shown = self.shown.replace(0);
        if shown > 0 {
            print!("\r{:shown$}\r", "");
        }
    }
}
