//! Items and attribute values with DynamoDB's equality: numbers compare by their text, sets ignore
//! order.
//!
//! An item is a sorted list of its attributes. Nearly every record is read, evaluated and
//! discarded, and building trees would take most of that time.

use std::collections::BTreeSet;

use bytes::Bytes;

/// An item, or its key: attribute values, sorted by attribute name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(Vec<(String, AttributeValue)>);

impl Item {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Value of an attribute.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.search(name).ok().and_then(|index| self.0.get(index)).map(|(_, value)| value)
    }

    /// Sets an attribute, and returns its previous value.
    pub fn insert(&mut self, name: String, value: AttributeValue) -> Option<AttributeValue> {
        match self.search(&name) {
            Ok(index) => self.0.get_mut(index).map(|(_, old)| std::mem::replace(old, value)),
            Err(index) => {
                self.0.insert(index, (name, value));
                None
            }
        }
    }

    /// Removes an attribute, and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<AttributeValue> {
        self.search(name).ok().map(|index| self.0.remove(index).1)
    }

    /// Attributes, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &AttributeValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Approximate memory use, in bytes.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| 32 + name.len() + value.size()).sum()
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Index of an attribute, or the index at which to insert it.
    fn search(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

/// If a name occurs twice, the last value is kept.
impl FromIterator<(String, AttributeValue)> for Item {
    fn from_iter<T: IntoIterator<Item = (String, AttributeValue)>>(attributes: T) -> Self {
        let mut attributes: Vec<_> = attributes.into_iter().collect();
        attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
        attributes.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(attributes)
    }
}

impl<const COUNT: usize> From<[(String, AttributeValue); COUNT]> for Item {
    fn from(attributes: [(String, AttributeValue); COUNT]) -> Self {
        attributes.into_iter().collect()
    }
}

impl IntoIterator for Item {
    type Item = (String, AttributeValue);
    type IntoIter = std::vec::IntoIter<(String, AttributeValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A DynamoDB attribute value.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeValue {
    /// A string.
    S(String),
    /// A number as DynamoDB wrote it, so that none of its up to 38 digits is lost.
    N(String),
    /// A binary value.
    B(Bytes),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
    /// A set of strings.
    Ss(BTreeSet<String>),
    /// A set of numbers, each as DynamoDB wrote it.
    Ns(BTreeSet<String>),
    /// A set of binary values.
    Bs(BTreeSet<Bytes>),
    /// A list.
    L(Vec<AttributeValue>),
    /// A map.
    M(Item),
}

impl AttributeValue {
    /// Approximate memory use, in bytes.
    pub fn size(&self) -> usize {
        const VALUE_BYTES: usize = 32;
        match self {
            Self::S(text) | Self::N(text) => text.len(),
            Self::B(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 0,
            Self::Ss(set) | Self::Ns(set) => set.iter().map(|text| VALUE_BYTES + text.len()).sum(),
            Self::Bs(set) => set.iter().map(|bytes| VALUE_BYTES + bytes.len()).sum(),
            Self::L(list) => list.iter().map(|value| VALUE_BYTES + value.size()).sum(),
            Self::M(map) => map.size(),
        }
    }

    /// The type descriptor of the DynamoDB API, such as `S` or `BOOL`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> AttributeValue {
        AttributeValue::N(n.to_string())
    }

    #[test]
    fn finds_an_attribute_by_name_and_stores_it_once() {
        let mut item =
            Item::from([("b", 1), ("a", 2), ("b", 3)].map(|(k, n)| (k.to_owned(), number(n))));
        let names: Vec<_> = item.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(item.get("b"), Some(&number(3)), "the last value is kept");
        assert_eq!(item.insert("a".to_owned(), number(4)), Some(number(2)));
        assert_eq!(item.insert("c".to_owned(), number(5)), None);
        assert_eq!(item.remove("b"), Some(number(3)));
        assert_eq!((item.get("b"), item.len()), (None, 2));
    }
}
