//! One-line text of an error with its causes.

use std::error::Error;

/// Joins an error and its causes with colons.
///
/// It omits a cause whose text the line already contains, because libraries often repeat their causes.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
