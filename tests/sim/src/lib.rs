//! Deterministic whole-cluster simulator.
