//! What one owner holds of a resource: ranges, each for reading or for writing.
//!
//! Keeps true: pieces are in order, do not overlap, and those that touch differ.

use smallvec::SmallVec;

/// Bytes from `start` to `end`, both of them included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// Everything.
    pub const ALL: Span = Span { start: 0, end: u64::MAX };

    /// `None` when it would have no byte.
    pub const fn new(start: u64, end: u64) -> Option<Span> {
        if start <= end { Some(Span { start, end }) } else { None }
    }

    pub const fn start(self) -> u64 {
        self.start
    }

    pub const fn end(self) -> u64 {
        self.end
    }

    pub const fn overlaps(self, other: Span) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn is_followed_by(self, next: Span) -> bool {
        self.end.checked_add(1) == Some(next.start)
    }

    fn before(self, at: u64) -> Option<Span> {
        let end = self.end.min(at.checked_sub(1)?);
        Span::new(self.start, end)
    }

    fn behind(self, at: u64) -> Option<Span> {
        let start = self.start.max(at.checked_add(1)?);
        Span::new(start, self.end)
    }
}

/// For what a range is locked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Access {
    Read = 0,
    Write = 1,
}

impl Access {
    pub const fn goes_with(self, other: Access) -> bool {
        matches!((self, other), (Access::Read, Access::Read))
    }
}

/// A range that is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Piece {
    pub span: Span,
    pub access: Access,
    pub pid: u32,
    /// The open file through which it was taken; 0 at homes.
    pub via: u64,
}

impl Piece {
    fn differs_only_in_span(&self, other: &Piece) -> bool {
        (self.access, self.pid, self.via) == (other.access, other.pid, other.via)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pieces(SmallVec<[Piece; 1]>);

impl Pieces {
    pub fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first piece that `access` to any of `span` does not go with.
    pub fn conflict(&self, span: Span, access: Access) -> Option<&Piece> {
        self.overlapping(span).find(|piece| !piece.access.goes_with(access))
    }

    /// Is all of the span held, for that or for more?
    pub fn covers(&self, span: Span, access: Access) -> bool {
        let mut from = Some(span.start);
        for piece in self.overlapping(span) {
            let Some(at) = from.filter(|at| piece.span.start <= *at) else { return false };
            if piece.access < access {
                return false;
            }
            debug_assert!(piece.span.end >= at, "pieces are in order");
            from = piece.span.end.checked_add(1).filter(|next| *next <= span.end);
            if from.is_none() {
                return true;
            }
        }
        false
    }

    /// Is any of the span held for writing?
    pub fn writes_in(&self, span: Span) -> bool {
        self.overlapping(span).any(|piece| piece.access == Access::Write)
    }

    pub fn holds_in(&self, span: Span) -> bool {
        self.overlapping(span).next().is_some()
    }

    /// All of `one`'s span is held at least like that; what was held for more stays so.
    pub fn raise(&mut self, one: Piece) {
        let stays: Vec<Span> = match one.access {
            Access::Write => Vec::new(),
            Access::Read => {
                let writes = self.overlapping(one.span).filter(|p| p.access == Access::Write);
                let (start, end) = (one.span.start, one.span.end);
                writes
                    .filter_map(|p| Span::new(p.span.start.max(start), p.span.end.min(end)))
                    .collect()
            }
        };
        self.cut(one.span);
        self.insert(one);
        for span in stays {
            self.cut(span);
            self.insert(Piece { span, access: Access::Write, ..one });
        }
        self.merge();
    }

    /// Nothing of the span is held any more, or nothing for writing.
    pub fn lower(&mut self, span: Span, to: Option<Access>) {
        let left: Vec<Piece> = match to {
            None => Vec::new(),
            // Nothing is taken: what was held for more is all held at least like that.
            Some(access) => {
                let held = self.overlapping(span);
                held.filter_map(|p| {
                    let within = Span::new(p.span.start.max(span.start), p.span.end.min(span.end))?;
                    Some(Piece { span: within, access: p.access.min(access), ..*p })
                })
                .collect()
            }
        };
        self.cut(span);
        left.into_iter().for_each(|piece| self.insert(piece));
        self.merge();
    }

    fn overlapping(&self, span: Span) -> impl Iterator<Item = &Piece> {
        let first = self.0.partition_point(|piece| piece.span.end < span.start);
        self.0[first..].iter().take_while(move |piece| piece.span.start <= span.end)
    }

    /// Takes the span out, leaving what pieces have on both sides of it.
    fn cut(&mut self, span: Span) {
        let first = self.0.partition_point(|piece| piece.span.end < span.start);
        let behind = self.0.partition_point(|piece| piece.span.start <= span.end);
        if first >= behind {
            return;
        }
        let (lowest, highest) = (self.0[first], self.0[behind - 1]);
        let left = lowest.span.before(span.start).map(|span| Piece { span, ..lowest });
        let right = highest.span.behind(span.end).map(|span| Piece { span, ..highest });
        self.0.drain(first..behind);
        for (i, piece) in left.into_iter().chain(right).enumerate() {
            self.0.insert(first + i, piece);
        }
    }

    /// Puts in a piece where nothing is held.
    fn insert(&mut self, piece: Piece) {
        let at = self.0.partition_point(|other| other.span.end < piece.span.start);
        self.0.insert(at, piece);
    }

    fn merge(&mut self) {
        self.0.dedup_by(|next, piece| {
            let is_one = piece.span.is_followed_by(next.span) && piece.differs_only_in_span(next);
            if is_one {
                piece.span.end = next.span.end;
            }
            is_one
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 24;

    fn piece(start: u64, end: u64, access: Access) -> Piece {
        let span = Span::new(start, end).expect("not empty");
        Piece { span, access, pid: 1, via: 2 }
    }

    fn held(pieces: &Pieces, byte: u64) -> Option<Access> {
        let span = Span::new(byte, byte).expect("a byte");
        pieces.overlapping(span).next().map(|piece| piece.access)
    }

    #[test]
    fn a_lock_in_the_middle_splits_and_its_return_merges() {
        let mut pieces = Pieces::default();
        pieces.raise(piece(0, 9, Access::Write));
        pieces.lower(Span::new(3, 5).expect("span"), Some(Access::Read));
        let spans = |pieces: &Pieces| -> Vec<(u64, u64, Access)> {
            pieces.iter().map(|p| (p.span.start, p.span.end, p.access)).collect()
        };
        let (r, w) = (Access::Read, Access::Write);
        assert_eq!(spans(&pieces), [(0, 2, w), (3, 5, r), (6, 9, w)]);
        pieces.raise(piece(3, 5, Access::Write));
        assert_eq!(spans(&pieces), [(0, 9, w)]);
        pieces.lower(Span::new(4, 4).expect("span"), None);
        assert_eq!(spans(&pieces), [(0, 3, w), (5, 9, w)]);
        pieces.raise(piece(4, 4, Access::Read));
        assert_eq!(spans(&pieces), [(0, 3, w), (4, 4, r), (5, 9, w)]);
    }

    #[test]
    fn the_last_byte_there_is_can_be_locked() {
        let mut pieces = Pieces::default();
        pieces.raise(Piece { span: Span::ALL, ..piece(0, 0, Access::Read) });
        pieces.raise(piece(u64::MAX, u64::MAX, Access::Write));
        assert_eq!(pieces.len(), 2);
        assert!(pieces.covers(Span::ALL, Access::Read));
        pieces.lower(Span::ALL, None);
        assert!(pieces.is_empty());
    }

    /// Against an array of bytes, each with what it is locked for.
    #[test]
    fn pieces_are_what_their_bytes_are() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = crate::name::mix(state);
            state % below
        };
        for _ in 0..300 {
            let mut pieces = Pieces::default();
            let mut bytes = [None; 24];
            for _ in 0..40 {
                let (a, b) = (random(BYTES), random(BYTES));
                let span = Span::new(a.min(b), a.max(b)).expect("in order");
                let access = if random(2) == 0 { Access::Read } else { Access::Write };
                let covers = (span.start..=span.end)
                    .all(|b| bytes[usize::try_from(b).expect("small")] >= Some(access));
                assert_eq!(pieces.covers(span, access), covers, "{pieces:?} {span:?}");
                let conflicts = (span.start..=span.end).any(|b| {
                    bytes[usize::try_from(b).expect("small")]
                        .is_some_and(|held: Access| !held.goes_with(access))
                });
                assert_eq!(pieces.conflict(span, access).is_some(), conflicts);
                let act = random(3);
                for b in span.start..=span.end {
                    let byte = &mut bytes[usize::try_from(b).expect("small")];
                    *byte = match act {
                        0 => (*byte).max(Some(access)),
                        1 => None,
                        _ => (*byte).map(|held| held.min(Access::Read)),
                    };
                }
                match act {
                    0 => pieces.raise(Piece { span, access, pid: 1, via: 2 }),
                    1 => pieces.lower(span, None),
                    _ => pieces.lower(span, Some(Access::Read)),
                }
                for b in 0..BYTES {
                    let byte = bytes[usize::try_from(b).expect("small")];
                    assert_eq!(held(&pieces, b), byte, "byte {b} of {pieces:?}");
                }
                for pair in pieces.0.windows(2) {
                    assert!(pair[0].span.end < pair[1].span.start, "in order: {pieces:?}");
                    let is_one = pair[0].span.is_followed_by(pair[1].span)
                        && pair[0].differs_only_in_span(&pair[1]);
                    assert!(!is_one, "what touches differs: {pieces:?}");
                }
            }
        }
    }
}
