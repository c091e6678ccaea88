//! Carries fencing out: arbiter, reservations, agents.
