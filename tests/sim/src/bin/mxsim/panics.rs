//! A panic is what is wrong with a seed, and ends the process.

use std::cell::Cell;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// This thread plays a seed.
pub(crate) fn playing(seed: u64) {
    SEED.set(seed);
}

/// The seed that this thread plays.
pub(crate) fn played() -> u64 {
    SEED.get()
}

/// On a panic `tell` is called with the seed and what happened; then the process ends with 1.
#[expect(clippy::disallowed_methods, reason = "there is nothing to let go of after a panic")]
pub(crate) fn tell(tell: impl Fn(u64, &str) + Send + Sync + 'static) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let at = info.location().map_or_else(String::new, |at| format!(" at {at}"));
        tell(played(), &format!("{}{at}", info.payload_as_str().unwrap_or("a panic")));
        std::process::exit(1);
    }));
}
