//! Bytes that are nearly right, for every decoder of what comes from disk or wire.
//!
//! Keeps true: the same target with the same seed tries the same bytes; what made one fail is
//! printed.
//!
//! Whatever the bytes, a decoder gives a value or an error; and what it takes it reads again from
//! what the encoder makes of it. Checksums are mended after most changes, or nothing behind them
//! would ever be reached. Not guided by coverage: that needs a nightly compiler. Each target is a
//! plain function of bytes, so a fuzzer that is can call it as it is.

pub mod files;
pub mod kernel;
pub mod links;
pub mod locks;
pub mod storage;

mod mutate;

pub use mutate::Random;

/// A decoder, and where to start from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Bytes that the decoder takes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums right again.
    pub mend: fn(&mut Vec<u8>),
    /// Decodes and checks; true when the bytes were taken.
    pub run: fn(&[u8]) -> bool,
}

/// For formats without a checksum.
pub fn no_checksum(_: &mut Vec<u8>) {}

/// Tries a target so many times; gives how often the bytes were taken.
///
/// # Panics
/// When the target does, or refuses one of its seeds.
pub fn fuzz(target: Target, seed: u64, rounds: u64) -> u64 {
    let seeds = (target.seeds)();
    let mut random = Random::new(seed);
    let mut taken = 0;
    for bytes in &seeds {
        assert!(run(target, bytes), "a seed is refused");
        for cut in 0..bytes.len().min(256) {
            run(target, &bytes[..cut]);
        }
    }
    for _ in 0..rounds {
        let mut bytes = random.pick(&seeds).clone();
        random.change(&mut bytes, &seeds);
        if random.below(8) != 0 {
            (target.mend)(&mut bytes);
        }
        taken += u64::from(run(target, &bytes));
    }
    taken
}

fn run(target: Target, bytes: &[u8]) -> bool {
    let _shown = Shown(bytes);
    (target.run)(bytes)
}

/// Prints the bytes when the target panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    #[expect(clippy::print_stderr, reason = "a failure shows the bytes that made it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} bytes: {hex}", self.0.len());
        }
    }
}
