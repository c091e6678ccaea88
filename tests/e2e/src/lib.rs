//! Tests with real processes and real mounts.
