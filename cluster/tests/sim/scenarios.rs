//! Named situations with promised times.
