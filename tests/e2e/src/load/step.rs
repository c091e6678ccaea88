//! What a writer does, by number.

use std::fmt;
use std::str::FromStr;

/// The log that all append to, in the root of the mount.
pub const LOG: &str = "log";

/// The directory that all create in.
pub const FOLDER: &str = "together";

/// Bytes of a record of the log, with its end of line.
pub const RECORD: usize = 64;

/// What kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// Appends to one log, creates in one directory.
    Together,
    /// The same, and renames, unlinks and overwrites.
    Mixed,
    /// Delivers mail ([`super::mail`]).
    Mail,
}

/// One operation of a writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A record of this number at the end of the log.
    Append(u64),
    /// A file of this number.
    Create(u64),
    /// The file of this number gets its second name.
    Rename(u64),
    /// The file of this number, under its first name.
    Unlink(u64),
    /// The beginning of the file of this number, under its second name, gets other contents.
    Overwrite(u64),
    /// The mail of this number.
    Deliver(u64),
}

impl Mix {
    /// Operation `number` of every writer.
    pub fn step(self, number: u64) -> Step {
        match self {
            Mix::Mail => Step::Deliver(number),
            Mix::Together if number.is_multiple_of(2) => Step::Append(number),
            Mix::Together => Step::Create(number),
            Mix::Mixed => match number % 8 {
                0 | 2 => Step::Create(number),
                4 => Step::Rename(number - 4),
                6 => Step::Unlink(number - 4),
                7 => Step::Overwrite(number - 7),
                _ => Step::Append(number),
            },
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        match text {
            "together" => Ok(Mix::Together),
            "mixed" => Ok(Mix::Mixed),
            "mail" => Ok(Mix::Mail),
            _ => Err(format!("`{text}`: expected together, mixed or mail")),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mix::Together => "together",
            Mix::Mixed => "mixed",
            Mix::Mail => "mail",
        })
    }
}

/// The name that a file is created under.
pub fn first_name(writer: u32, file: u64) -> String {
    format!("w{writer}-{file}")
}

/// The name that it is renamed to.
pub fn second_name(writer: u32, file: u64) -> String {
    format!("w{writer}-{file}-renamed")
}

/// The contents of a file: no two have the same anywhere, and most are of several blocks.
pub fn contents(writer: u32, file: u64) -> Vec<u8> {
    let length = usize::try_from(mixed(u64::from(writer) << 32 | file) % 20_000).unwrap_or(0);
    pattern(writer, file, "first").take(length.max(OVERWRITTEN)).collect()
}

/// What an overwrite puts at the beginning of a file.
pub fn other_beginning(writer: u32, file: u64) -> Vec<u8> {
    pattern(writer, file, "second").take(OVERWRITTEN).collect()
}

/// Bytes of an overwrite.
const OVERWRITTEN: usize = 100;

fn pattern(writer: u32, file: u64, which: &str) -> impl Iterator<Item = u8> {
    format!("<{which} contents of file {file} of writer {writer}>\n")
        .into_bytes()
        .into_iter()
        .cycle()
}

/// A record of the log.
pub fn record(writer: u32, number: u64) -> [u8; RECORD] {
    let sum = mixed(u64::from(writer) << 40 ^ number);
    let text = format!("writer {writer:10} record {number:12} sum {sum:016x}");
    let text = format!("{text:63}\n");
    let mut record = [0; RECORD];
    record.copy_from_slice(text.as_bytes());
    record
}

/// Whose record it is; `None` when it is none, or not whole.
pub fn read_record(bytes: &[u8]) -> Option<(u32, u64)> {
    let mut words = std::str::from_utf8(bytes).ok()?.split_whitespace();
    let writer = words.nth(1)?.parse().ok()?;
    let number = words.nth(1)?.parse().ok()?;
    (record(writer, number) == bytes).then_some((writer, number))
}

/// Different inputs give numbers that have nothing to do with each other (SplitMix64).
fn mixed(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_one_that_is_not_whole_is_none() {
        let mut bytes = record(7, 123);
        assert_eq!(read_record(&bytes), Some((7, 123)));
        bytes[40] ^= 1;
        assert_eq!(read_record(&bytes), None);
        assert_eq!(read_record(&[0; RECORD]), None);
    }

    #[test]
    fn what_is_renamed_unlinked_and_overwritten_was_created_before() {
        for number in 0..64 {
            let file = match Mix::Mixed.step(number) {
                Step::Rename(file) | Step::Unlink(file) => file,
                Step::Overwrite(file) => {
                    assert_eq!(Mix::Mixed.step(file + 4), Step::Rename(file));
                    file
                }
                Step::Append(_) | Step::Create(_) | Step::Deliver(_) => continue,
            };
            assert_eq!(Mix::Mixed.step(file), Step::Create(file));
        }
    }
}
