//! The causes of an error.

use std::error::Error;
use std::io;

/// Whether an error, or one of its causes, is a `T`.
pub fn has_cause<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<T>())
}

/// The error, followed by its causes.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // The source of an I/O error is that of its payload, which would be skipped.
        let payload = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        payload.map(|payload| payload as &(dyn Error + 'static)).or_else(|| error.source())
    })
}
