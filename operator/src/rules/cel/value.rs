//! Attribute values as CEL values. Text and binary are borrowed from the record, not copied.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelBytes, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
};
use cel::common::value::Val;

use super::instrument::Variable;
use super::number::number;
use crate::model::{AttributeValue, Item, Record};

/// How deep lists and maps of a record may nest; DynamoDB's own limit is 32.
pub(crate) const MAX_NESTING: usize = 64;

/// A value of a record nests deeper than [`MAX_NESTING`].
#[derive(Debug)]
pub(crate) struct TooDeep;

type Converted<'v> = Result<Box<dyn Val + 'v>, TooDeep>;

/// The value of a variable for one record.
pub(crate) fn variable(variable: Variable, change: &Record) -> Converted<'_> {
    Ok(match variable {
        Variable::EventName => Box::new(CelString::from(change.event.as_str())),
        Variable::Keys => item(&change.keys, MAX_NESTING)?,
        Variable::Old => item(&change.old, MAX_NESTING)?,
        Variable::New => item(&change.new, MAX_NESTING)?,
        Variable::EventId => Box::new(CelString::from(change.event_id.as_str())),
        Variable::SequenceNumber => Box::new(CelString::from(change.sequence_number.as_str())),
        Variable::ApproximateCreationDateTime => {
            Box::new(CelInt::from(change.approximate_creation_time.0))
        }
        Variable::UserIdentity => {
            let mut map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = HashMap::new();
            if let Some(identity) = &change.user_identity {
                let mut insert = |key: &'static str, value| {
                    map.insert(key.into(), Box::new(CelString::from(value)));
                };
                insert("type", identity.identity_type.as_str());
                insert("principalId", identity.principal_id.as_str());
            }
            Box::new(CelMap::from(map))
        }
    })
}

fn item(item: &Item, levels: usize) -> Converted<'_> {
    let levels = levels.checked_sub(1).ok_or(TooDeep)?;
    let map: HashMap<CelMapKey<'_>, _> = item
        .iter()
        .map(|(name, value)| Ok((name.as_str().into(), attribute(value, levels)?)))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(CelMap::from(map)))
}

fn attribute(value: &AttributeValue, levels: usize) -> Converted<'_> {
    Ok(match value {
        AttributeValue::S(text) => Box::new(CelString::from(text.as_str())),
        AttributeValue::N(text) => number(text),
        AttributeValue::B(bytes) => Box::new(CelBytes::from(bytes.as_ref())),
        AttributeValue::Bool(value) => Box::new(CelBool::from(*value)),
        AttributeValue::Null => Box::new(CelNull),
        // A set's order here is that of a `BTreeSet`: the same for the same set.
        AttributeValue::Ss(set) => {
            list(set.iter().map(|text| Ok(Box::new(CelString::from(text.as_str())) as _)))?
        }
        AttributeValue::Ns(set) => list(set.iter().map(|text| Ok(number(text) as _)))?,
        AttributeValue::Bs(set) => {
            list(set.iter().map(|bytes| Ok(Box::new(CelBytes::from(bytes.as_ref())) as _)))?
        }
        AttributeValue::L(elements) => {
            let levels = levels.checked_sub(1).ok_or(TooDeep)?;
            list(elements.iter().map(|element| attribute(element, levels)))?
        }
        AttributeValue::M(map) => item(map, levels)?,
    })
}

fn list<'v>(elements: impl Iterator<Item = Converted<'v>>) -> Converted<'v> {
    Ok(Box::new(CelList::from(elements.collect::<Result<Vec<_>, _>>()?)))
}
