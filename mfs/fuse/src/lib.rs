//! Translates kernel requests to file-system operations.
