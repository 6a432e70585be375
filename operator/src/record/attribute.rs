//! Attribute values with DynamoDB's own equality: numbers by their text, sets without order.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::Item;

/// A DynamoDB attribute value.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeValue {
    /// A string.
    S(String),
    /// A number, as DynamoDB wrote it (up to 38 digits), so that none is lost.
    N(String),
    /// Binary.
    B(Bytes),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
    /// A set of strings.
    Ss(BTreeSet<String>),
    /// A set of numbers, each as DynamoDB wrote it.
    Ns(BTreeSet<String>),
    /// A set of binaries.
    Bs(BTreeSet<Bytes>),
    /// A list.
    L(Vec<AttributeValue>),
    /// A map.
    M(Item),
}

impl AttributeValue {
    /// Roughly how many bytes it takes.
    pub fn size(&self) -> usize {
        const VALUE: usize = 32;
        match self {
            Self::S(text) | Self::N(text) => text.len(),
            Self::B(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 0,
            Self::Ss(set) | Self::Ns(set) => set.iter().map(|text| VALUE + text.len()).sum(),
            Self::Bs(set) => set.iter().map(|bytes| VALUE + bytes.len()).sum(),
            Self::L(list) => list.iter().map(|value| VALUE + value.size()).sum(),
            Self::M(map) => map.size(),
        }
    }

    /// The type as AWS spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::S(_) => "S",
            Self::N(_) => "N",
            Self::B(_) => "B",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
            Self::Ss(_) => "SS",
            Self::Ns(_) => "NS",
            Self::Bs(_) => "BS",
            Self::L(_) => "L",
            Self::M(_) => "M",
        }
    }
}

/// The names of a table's, or an index's, key attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyNames {
    /// The partition key.
    pub partition: String,
    /// The sort key, where there is one.
    pub sort: Option<String>,
}

impl fmt::Display for KeyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.partition)?;
        self.sort.iter().try_for_each(|sort| write!(f, " and {sort}"))
    }
}
