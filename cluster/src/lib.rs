//! Links, heartbeats, views and the order of recovery.
