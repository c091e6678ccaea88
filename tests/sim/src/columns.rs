//! A log with a column for every node, and one for the world: who saw what at the same time.
//!
//! Shows events of `tracing`. Whose they are is told by the task that runs, or, of what the world does
//! to a node, by a field `column`.

use std::fmt;
use std::io::Write as _;

use mx_base::{Duration, Instant};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::exec;

/// Runs begin then.
const BEGINNING: Instant = Instant(1_000_000_000);
/// Characters of the column of time.
const TIME: usize = 10;

/// Writes columns to standard output.
#[derive(Debug)]
pub struct Columns {
    /// Nodes; the world has one column more.
    nodes: usize,
    /// Characters of each.
    width: usize,
    from: Duration,
    until: Duration,
    /// The columns of what was written last, and when.
    last: Mutex<Duration>,
}

impl Columns {
    /// Of what happens between two times from the beginning of the run, `width` characters in all.
    pub fn new(nodes: usize, width: usize, from: Duration, until: Duration) -> Columns {
        let width = (width.saturating_sub(TIME) / (nodes + 1)).saturating_sub(3).max(18);
        Columns { nodes, width, from, until, last: Mutex::new(Duration::MAX) }
    }

    /// What stands above.
    pub fn head(&self) -> String {
        let names = (0..=self.nodes).map(|column| match column {
            0 => "world".to_owned(),
            n => format!("node {n}"),
        });
        let cells: Vec<String> = names.map(|name| format!("{name:<0$}", self.width)).collect();
        format!("{:>TIME$} | {}", "time", cells.join(" | "))
    }

    /// The lines of one event.
    fn lines(&self, time: Option<Duration>, column: usize, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, piece) in wrap(text, self.width).into_iter().enumerate() {
            let time = match (i, time) {
                (0, Some(time)) => format!("{:.6}", time.as_secs_f64()),
                _ => String::new(),
            };
            let cells: Vec<String> = (0..=self.nodes)
                .map(|c| format!("{:<1$}", if c == column { &piece } else { "" }, self.width))
                .collect();
            lines.push(format!("{time:>TIME$} | {}", cells.join(" | ")).trim_end().to_owned());
        }
        lines
    }
}

/// Cuts at blanks where it can.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let line = lines.last().expect("one at least");
        if !line.is_empty() && line.chars().count() + 1 + word.len() > width {
            lines.push(String::new());
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.last_mut().expect("one at least").extend(word);
            lines.push(String::new());
            word = rest;
        }
        let line = lines.last_mut().expect("one at least");
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    lines
}

/// The message, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    column: Option<u16>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match (field.name(), u16::try_from(value)) {
            ("column", Ok(column)) => self.column = Some(column),
            _ => self.record_debug(field, &value),
        }
    }
}

impl<S: Subscriber> Layer<S> for Columns {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (now, _) = exec::running();
        let time = now.since(BEGINNING);
        if time < self.from || time > self.until {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let column = usize::from(text.column.unwrap_or_else(exec::running_column));
        let is_new = std::mem::replace(&mut *self.last.lock(), time) != time;
        let text = format!("{}{}", text.message, text.fields);
        let mut out = std::io::stdout().lock();
        for line in self.lines(is_new.then_some(time), column.min(self.nodes), &text) {
            // Whoever reads it may have enough.
            let _ = writeln!(out, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_does_stands_in_its_column_and_nowhere_else() {
        let columns = Columns::new(2, 100, Duration::ZERO, Duration::MAX);
        let lines = columns.lines(Some(Duration::from_millis(1_250)), 2, "has EX");
        let cells: Vec<&str> = lines[0].split('|').map(str::trim).collect();
        assert_eq!(cells, ["1.250000", "", "", "has EX"]);
        assert_eq!(columns.head().split('|').count(), 4);
    }

    #[test]
    fn long_texts_are_cut_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
    }
}
