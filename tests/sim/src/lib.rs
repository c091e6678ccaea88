//! The deterministic simulator: the real cores in one thread, every choice from one seed.
//!
//! * [`exec`]: tasks and virtual time; which ready task runs next is drawn.
//! * [`disk`]: a device that delays, loses, tears and refuses, and tells what a crash may leave.
//! * [`single`]: one node alone, with a crash after every write.
//! * [`solo`]: locks for a node that is alone.
//! * [`driver`]: carries operations of the model out on the file system and compares the answers.
//! * [`fleet`]: whole clusters, with everything that can go wrong.
//! * [`mutations`]: rules that are broken on purpose, to be found out.
//! * [`walk`]: what is found from the root.

pub mod columns;
pub mod disk;
pub mod driver;
pub mod exec;
pub mod fleet;
pub mod mutations;
pub mod single;
pub mod solo;
pub mod walk;
