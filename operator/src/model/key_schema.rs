//! Key attributes of a table or an index.

use std::fmt;

/// Names of the key attributes of a table or an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySchema {
    /// Name of the partition key.
    pub partition: String,
    /// Name of the sort key, if there is one.
    pub sort: Option<String>,
}

impl fmt::Display for KeySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.partition)?;
        self.sort.iter().try_for_each(|sort| write!(f, " and {sort}"))
    }
}
