//! One node without its machine: wires the cores together.
