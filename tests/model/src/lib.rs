//! Reference lock table and POSIX tree.
