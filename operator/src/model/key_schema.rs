//! The key attributes of a table or an index.

use std::fmt;

/// The names of a table's, or an index's, key attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySchema {
    /// The partition key.
    pub partition: String,
    /// The sort key, where there is one.
    pub sort: Option<String>,
}

impl fmt::Display for KeySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.partition)?;
        self.sort.iter().try_for_each(|sort| write!(f, " and {sort}"))
    }
}
