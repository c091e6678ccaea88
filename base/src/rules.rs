//! The rules that the simulator proves to be needed: each can be broken on purpose, one at a time,
//! and has to be found out (`docs/spec/proof.md`).
//!
//! Nothing is broken in what ships: without the feature `broken-rules` every rule is kept, and
//! [`is_kept`] is a constant that the compiler removes. With it a process breaks the one rule that
//! it was told to break before it began.

/// Defines the rules: what each says, where it is kept, its name.
macro_rules! rules {
    ($(#[doc = $sentence:literal] #[doc = $place:literal] $rule:ident,)*) => {
        /// A rule, named for what is done where it is kept.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Rule {
            $(#[doc = $sentence] #[doc = ""] #[doc = $place] $rule,)*
        }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$rule,)*];

            /// What the rule says.
            pub const fn sentence(self) -> &'static str {
                match self { $(Rule::$rule => $sentence.trim_ascii(),)* }
            }

            /// The module, or modules, in which it is kept.
            pub const fn place(self) -> &'static str {
                match self { $(Rule::$rule => $place.trim_ascii(),)* }
            }

            const fn identifier(self) -> &'static str {
                match self { $(Rule::$rule => stringify!($rule),)* }
            }
        }
    };
}

rules! {
    // --- grants ---
    /// PR and EX are never granted together.
    /// `dlm::resource`
    CheckReadersBeforeWriter,
    /// Who stands in the way of a conversion is called out.
    /// `dlm::resource::grant`
    CallOutForConversion,
    /// A holder that was called out and granted a stronger mode since is called out again.
    /// `dlm::resource::grant`
    CallOutAgain,
    /// A Lower that crosses a grant does not take the granted mode away.
    /// `dlm::resource::grant`
    NoticeCrossingGrant,
    // --- homes and views ---
    /// A message that belongs to an older epoch of its bucket is dropped (I6).
    /// `dlm::lockspace::take_in`
    DropOldEpochs,
    /// A message of a view that is not known yet is kept until it is.
    /// `dlm::lockspace::take_in`
    KeepEarlyMessages,
    /// An heir grants in a bucket only when every member has reported.
    /// `dlm::lockspace::view`
    AwaitAllReports,
    /// A holder reports the mode that it may use, not the one that it has asked for (I6).
    /// `dlm::rebuild::report`
    ReportWhatIsHeld,
    /// What a node waits for is reported to the heir as well.
    /// `dlm::rebuild::report`
    ReportWhatIsWaitedFor,
    /// Nothing is decided about advisory locks in a bucket before every member has reported.
    /// `dlm::lockspace::claims`
    AwaitReportsOfClaims,
    /// All nodes choose the same home for a bucket.
    /// `dlm::homes`
    ChooseOneHome,
    // --- the dead ---
    /// What a dead member waited for goes with it.
    /// `dlm::resource`
    DropQueueOfDead,
    /// Advisory locks of a dead member stay until it is fenced.
    /// `dlm::lockspace::claims`
    KeepClaimsOfDead,
    /// EX of a dead member is limbo at a home that knows of it.
    /// `dlm::rebuild::limbo`
    KeepExOfDead,
    /// In a rebuilt bucket a dead member may have held anything that the survivors did not.
    /// `dlm::lockspace::view`
    AssumeTheWorst,
    /// What a dead member read goes on to forbid writing until its caches are gone.
    /// `daemon::node`
    AwaitCachesOfDead,
    /// Every resource with live records stays in limbo until it is redone.
    /// `dlm::rebuild::limbo`
    KeepLiveInLimbo,
    /// Nobody trusts the value block of a resource that was in limbo.
    /// `dlm::resource`
    ForgetValueInLimbo,
    /// The recoverer tells the live names again when homes have changed.
    /// `dlm::lockspace::recover`
    TellLiveNamesAgain,
    /// What a dead member wrote is durable before it counts as in place.
    /// `mfs::mount::recover`
    FlushBehindDead,
    /// A lock is free only when its blocks are redone.
    /// `mfs::mount::recover`
    RedoBeforeRelease,
    /// Only what is older in place is live, and only that is redone.
    /// `mfs::journal::replay`
    RedoOnlyNewer,
    /// A block that is torn in a later version than all of a journal is not mended with it.
    /// `mfs::journal::replay`
    SeeWhoTore,
    /// What is rebuilt in the place of a block that says nothing any more is isolated.
    /// `mfs::journal::replay`
    DoubtUnknown,
    /// A slot that was left dirty is nobody's before it is replayed, not even its own node's.
    /// `mfs::mount::slots`, `mfs::mount::recover`
    LeaveDirtySlots,
    /// The loss of one copy of a slot's head loses nothing.
    /// `mfs::slot::head`
    WriteBothHeads,
    /// The orphans of a dead member are adopted.
    /// `mfs::mount::recover`
    AdoptOrphans,
    // --- fencing and membership ---
    /// A fence is believed when it is proven (I5).
    /// `daemon::storage`
    AwaitFence,
    /// Who is not recovered stays a victim when more change.
    /// `fencing::administrator`
    KeepVictims,
    /// A ballot adopts what was accepted before it.
    /// `fencing::register::attempt`
    AdoptAccepted,
    /// A view is acted in when the register has committed it (R11).
    /// `cluster::membership::committer`
    AwaitCommit,
    /// A message is delivered once, however many connections carry it.
    /// `cluster::link`
    DeliverOnce,
    /// What was not acknowledged goes again over the next connection.
    /// `cluster::link`
    SendAgain,
    // --- surrender ---
    /// What was changed is durable in place before a lock is given up (I2).
    /// `lcl::surrender`
    FlushBeforeRelease,
    /// What this node has cached is forgotten with the lock.
    /// `mfs::locks`
    PurgeOnRelease,
    /// A node uses no mode that its home takes for given up (I6).
    /// `lcl::cache`
    LowerBeforeTelling,
    /// Attributes that the kernel caches go before the lock does.
    /// `mfs::locks`
    RevokeAttributes,
    /// What the kernel was told before a change that it does not see counts no more behind it.
    /// `mfs::ops::lookup`
    OutdateAnswers,
    /// The kernel knows the end of an open file when it has asked for it.
    /// `mfs::ops::end`
    ShowEnd,
    /// Names that the kernel caches go before the lock does.
    /// `mfs::locks`
    RevokeNames,
    /// Pages that the kernel caches go before the lock does.
    /// `mfs::locks`
    RevokePages,
    // --- the journal ---
    /// A block is written in place only when its records are durable (I2).
    /// `mfs::journal::in_place`
    LogBeforePlace,
    /// fsync ends when the log is durable (I7).
    /// `mfs::ops::fsync`
    AwaitLogWrite,
    /// A segment is durable before it counts.
    /// `mfs::journal::commit`
    FlushSegments,
    /// A block counts as in place when it is durable there.
    /// `mfs::runs`
    FlushPlaces,
    /// A change that is made while its block is being written in place is not in place.
    /// `mfs::journal::in_place`
    NoticeChangesMeanwhile,
    /// The first record behind a write in place is a whole image.
    /// `mfs::journal::in_place`
    ImageAfterPlace,
    /// A torn segment is none.
    /// `mfs::journal::scan`
    CheckSegments,
    /// A segment of an earlier life of the journal is none.
    /// `mfs::journal::scan`
    CheckLifeOfSegments,
    /// A slot is clean when its last block is in place.
    /// `mfs::mount`
    DrainBeforeClean,
    // --- data and space ---
    /// Extents are marked written when the data is durable in them (I10).
    /// `mfs::inode::flush`
    DataBeforeExtents,
    /// The size that is on disk covers no data that is not durable (I10).
    /// `mfs::inode`
    SizeBehindData,
    /// What lies between the old end and the new one reads as zeros (I10).
    /// `mfs::ops::write`
    ZeroTail,
    /// A freed block rests until its transaction is durable.
    /// `mfs::alloc`
    RestFreedBlocks,
    /// A chunk has valid headers on disk before it counts as metadata (I4).
    /// `mfs::alloc::chunk`
    WriteFreeHeaders,
    /// A free block is discarded only when it does not rest.
    /// `mfs::ops::trim`
    TrimRested,
    /// Free blocks of metadata keep their headers: they are not discarded (I4).
    /// `mfs::ops::trim`
    TrimDataOnly,
    /// A group is held until the last discard in it has ended.
    /// `mfs::ops::trim`
    TrimInHeldGroups,
    /// A file system is frozen when everything is in place.
    /// `mfs::freeze`
    RestBeforeFreeze,
    /// ctime and mtime never go back (I8).
    /// `mx_base::time`
    AdvanceTimes,
}

impl Rule {
    /// As on a command line: `call-out-again`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in self.identifier().chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    pub fn of_name(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }
}

/// Is `rule` kept by this process? Always, but where the simulator breaks it to be found out.
#[cfg(not(feature = "broken-rules"))]
#[inline(always)]
pub const fn is_kept(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "broken-rules")]
pub use broken::{break_rule, is_kept};

/// Can a rule be broken in this build? Never in one that ships.
pub const CAN_BE_BROKEN: bool = cfg!(feature = "broken-rules");

#[cfg(feature = "broken-rules")]
mod broken {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Rule;

    const NONE: u8 = u8::MAX;
    const _: () = assert!(Rule::ALL.len() < NONE as usize);

    static BROKEN: AtomicU8 = AtomicU8::new(NONE);

    /// See the other build.
    #[inline]
    pub fn is_kept(rule: Rule) -> bool {
        BROKEN.load(Ordering::Relaxed) != rule as u8
    }

    /// This process does not keep `rule` from now on, for good.
    ///
    /// # Panics
    /// When one is broken already.
    pub fn break_rule(rule: Rule) {
        let before = BROKEN.swap(rule as u8, Ordering::Relaxed);
        assert!(before == NONE, "one rule is broken at a time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_name() {
        for rule in Rule::ALL {
            assert_eq!(Rule::of_name(&rule.name()), Some(*rule));
        }
        assert_eq!(Rule::CallOutAgain.name(), "call-out-again");
        assert_eq!(Rule::of_name("none"), None);
    }

    #[test]
    fn every_rule_says_in_a_sentence_what_is_kept_where() {
        for rule in Rule::ALL {
            assert!(rule.sentence().ends_with('.'), "{rule:?}");
            assert!(rule.place().starts_with('`'), "{rule:?}");
        }
    }

    #[cfg(not(feature = "broken-rules"))]
    #[test]
    fn every_rule_is_kept() {
        const { assert!(!CAN_BE_BROKEN) };
        assert!(Rule::ALL.iter().all(|rule| is_kept(*rule)));
    }
}
