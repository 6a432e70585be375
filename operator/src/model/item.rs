//! Items and attribute values with DynamoDB's own equality: numbers by their text, sets without order.
//!
//! An item is a sorted list of its attributes, because nearly every record is read, evaluated and
//! dropped, and building trees would take most of that time.

use std::collections::BTreeSet;

use bytes::Bytes;

/// An item, or its key: attribute name to value, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(Vec<(String, AttributeValue)>);

impl Item {
    /// An item without attributes.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An attribute's value.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.place(name).ok().and_then(|place| self.0.get(place)).map(|(_, value)| value)
    }

    /// Sets an attribute, and returns what it was.
    pub fn insert(&mut self, name: String, value: AttributeValue) -> Option<AttributeValue> {
        match self.place(&name) {
            Ok(place) => self.0.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                self.0.insert(place, (name, value));
                None
            }
        }
    }

    /// Takes an attribute away, and returns what it was.
    pub fn remove(&mut self, name: &str) -> Option<AttributeValue> {
        self.place(name).ok().map(|place| self.0.remove(place).1)
    }

    /// The attributes, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &AttributeValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Roughly how many bytes it takes.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| 32 + name.len() + value.size()).sum()
    }

    /// How many attributes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

/// Of a name that comes twice, the last value counts.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> AttributeValue {
        AttributeValue::N(n.to_string())
    }

    #[test]
    fn an_attribute_is_found_by_its_name_and_there_once() {
        let mut item =
            Item::from([("b", 1), ("a", 2), ("b", 3)].map(|(k, n)| (k.to_owned(), number(n))));
        let names: Vec<_> = item.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(item.get("b"), Some(&number(3)), "the last counts");
        assert_eq!(item.insert("a".to_owned(), number(4)), Some(number(2)));
        assert_eq!(item.insert("c".to_owned(), number(5)), None);
        assert_eq!(item.remove("b"), Some(number(3)));
        assert_eq!((item.get("b"), item.len()), (None, 2));
    }
}
