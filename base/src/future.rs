//! The one shape in which asynchronous work crosses a trait object.

use std::future::Future;
use std::pin::Pin;

/// A future on the heap that any thread may run.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
