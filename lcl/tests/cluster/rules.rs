//! The rules of the lock cache, one by one.
