//! A queue with a bound: everything that queues says how much it may hold (house style S9).

use std::collections::VecDeque;

/// First in, first out, at most `bound` items.
#[derive(Clone, Debug)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    bound: usize,
}

/// The queue was full; the item comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> BoundedQueue<T> {
    pub fn new(bound: usize) -> BoundedQueue<T> {
        BoundedQueue { items: VecDeque::new(), bound }
    }

    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.items.len() >= self.bound {
            return Err(Full(item));
        }
        self.items.push_back(item);
        Ok(())
    }

    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_item_that_does_not_fit_comes_back() {
        let mut queue = BoundedQueue::new(1);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Err(Full(2)));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(3), Ok(()));
    }
}
