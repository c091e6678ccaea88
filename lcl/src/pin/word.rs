//! The atomic word of an entry: layout, and the rule that admits a pin.

use std::fmt;

use dlm::Mode;

use super::{Purpose, Want};

/// One value of the word.
///
/// | bits  | meaning |
/// |-------|---------|
/// | 0-2   | mode held |
/// | 3     | closing: a surrender has begun |
/// | 4     | closed: no pin is left, but those that a surrender leaves, and none is given |
/// | 5     | an exclusive pin exists |
/// | 6     | somebody waits: whoever unpins must look at the queue |
/// | 7     | a kernel page was served since the last pass of the surrender |
/// | 8     | cut off for good |
/// | 9     | pinned since the last look of whoever makes room |
/// | 16-39 | shared pins of operations |
/// | 40-63 | pins of kernel pages |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const MODE_MASK: u64 = 0b111;
const CLOSING: u64 = 1 << 3;
const CLOSED: u64 = 1 << 4;
const EXCLUSIVE: u64 = 1 << 5;
const WAITED: u64 = 1 << 6;
const SERVED: u64 = 1 << 7;
const CUT_OFF: u64 = 1 << 8;
const ACCESSED: u64 = 1 << 9;
const SHARED_ONE: u64 = 1 << 16;
const SHARED_MASK: u64 = 0xff_ffff << 16;
const KERNEL_ONE: u64 = 1 << 40;
const KERNEL_MASK: u64 = 0xff_ffff << 40;

impl Word {
    pub(super) const UNLOCKED: Word = Word(0);

    pub(super) fn mode(self) -> Mode {
        match Mode::from_u8((self.0 & MODE_MASK) as u8) {
            Some(mode) => mode,
            None => unreachable!("the word holds only modes"),
        }
    }

    pub(super) fn is_closing(self) -> bool {
        self.0 & (CLOSING | CLOSED) != 0
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(super) fn is_waited(self) -> bool {
        self.0 & WAITED != 0
    }

    pub(super) fn is_cut_off(self) -> bool {
        self.0 & CUT_OFF != 0
    }

    pub(super) fn operations(self) -> u64 {
        ((self.0 & SHARED_MASK) >> 16) + u64::from(self.0 & EXCLUSIVE != 0)
    }

    pub(super) fn kernel_pages(self) -> u64 {
        (self.0 & KERNEL_MASK) >> 40
    }

    pub(super) fn pins(self) -> u64 {
        self.operations() + self.kernel_pages()
    }

    /// The word with the pin added, when the rule admits it now.
    pub(super) fn admit(self, want: Want) -> Option<Word> {
        let closing_bars = match want.purpose {
            Purpose::Operation => CLOSING | CLOSED | CUT_OFF,
            Purpose::KernelPage => CLOSED | CUT_OFF,
            Purpose::Surrender => return None,
        };
        if self.0 & (closing_bars | EXCLUSIVE) != 0 || !self.mode().covers(want.mode) {
            return None;
        }
        match want.purpose {
            Purpose::Surrender => None,
            Purpose::KernelPage => {
                assert!(self.0 & KERNEL_MASK != KERNEL_MASK, "kernel page pins overflow");
                Some(Word((self.0 + KERNEL_ONE) | SERVED | ACCESSED))
            }
            Purpose::Operation if want.exclusive => {
                (self.pins() == 0).then_some(Word(self.0 | EXCLUSIVE | ACCESSED))
            }
            Purpose::Operation => {
                assert!(self.0 & SHARED_MASK != SHARED_MASK, "shared pins overflow");
                Some(Word((self.0 + SHARED_ONE) | ACCESSED))
            }
        }
    }

    /// May a page that the kernel asks for go past those who wait? A surrender waits for such pages,
    /// and so may an operation that has the lock and lets the kernel drop pages: a page in the queue
    /// behind somebody who waits for that operation would wait for ever. They are held up no longer
    /// by it than by the operation, and no operation comes past them.
    pub(super) fn lets_pages_overtake(self) -> bool {
        self.is_closing() || self.0 & SHARED_MASK != 0
    }

    /// The word with another shared pin, if there is one already.
    pub(super) fn join(self, want: Want) -> Option<Word> {
        let shared = self.0 & SHARED_MASK != 0 && self.0 & CUT_OFF == 0;
        assert!(self.0 & SHARED_MASK != SHARED_MASK, "shared pins overflow");
        (shared && self.mode().covers(want.mode)).then_some(Word(self.0 + SHARED_ONE))
    }

    /// The word without a pin that was admitted for `want`.
    pub(super) fn release(self, want: Want) -> Word {
        match want.purpose {
            Purpose::Surrender => self,
            Purpose::KernelPage => {
                assert!(self.kernel_pages() > 0, "a kernel page pin is released once");
                Word(self.0 - KERNEL_ONE)
            }
            Purpose::Operation if want.exclusive => {
                assert!(self.0 & EXCLUSIVE != 0, "an exclusive pin is released once");
                Word(self.0 & !EXCLUSIVE)
            }
            Purpose::Operation => {
                assert!(self.0 & SHARED_MASK != 0, "a shared pin is released once");
                Word(self.0 - SHARED_ONE)
            }
        }
    }

    pub(super) fn with_mode(self, mode: Mode) -> Word {
        Word((self.0 & !MODE_MASK) | mode as u64)
    }

    pub(super) fn waited(self, waited: bool) -> Word {
        if waited { Word(self.0 | WAITED) } else { Word(self.0 & !WAITED) }
    }

    pub(super) fn closing(self) -> Word {
        Word(self.0 | CLOSING)
    }

    /// A pass of the surrender begins. Pages that are being served right now may reach the kernel
    /// after it, so they count for the pass after.
    pub(super) fn unserved(self) -> Word {
        if self.kernel_pages() == 0 { Word(self.0 & !SERVED) } else { Word(self.0 | SERVED) }
    }

    pub(super) fn is_accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    pub(super) fn unaccessed(self) -> Word {
        Word(self.0 & !ACCESSED)
    }

    pub(super) fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    /// Closed, if the last pass served no kernel page and no pin is left, or `beside_shared` only
    /// shared ones of operations.
    pub(super) fn close(self, beside_shared: bool) -> Option<Word> {
        let is_left = if beside_shared {
            self.is_exclusive() || self.kernel_pages() > 0
        } else {
            self.pins() > 0
        };
        (self.0 & SERVED == 0 && !is_left).then_some(Word(self.0 | CLOSING | CLOSED))
    }

    pub(super) fn reopened(self, mode: Mode) -> Word {
        Word(self.0 & !(CLOSING | CLOSED | SERVED)).with_mode(mode)
    }

    pub(super) fn cut_off(self) -> Word {
        Word(self.0 | CUT_OFF)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode())?;
        for (bit, name) in [
            (CLOSING, "closing"),
            (CLOSED, "closed"),
            (EXCLUSIVE, "exclusive"),
            (WAITED, "waited"),
            (SERVED, "served"),
            (CUT_OFF, "cut off"),
            (ACCESSED, "accessed"),
        ] {
            if self.0 & bit != 0 {
                write!(f, " {name}")?;
            }
        }
        write!(f, " operations={} kernel_pages={}", self.operations(), self.kernel_pages())
    }
}
