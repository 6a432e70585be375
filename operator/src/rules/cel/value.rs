//! Converts attribute values to CEL values. Text and binary values borrow from the record.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelBytes, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
};
use cel::common::value::Val;

use super::instrument::Variable;
use super::number::number_to_cel;
use crate::model::{AttributeValue, Item, Record};

/// The maximum depth of lists and maps in a record. DynamoDB's own limit is 32 levels.
pub(crate) const MAX_NESTING: usize = 64;

/// A value of a record is nested deeper than [`MAX_NESTING`].
#[derive(Debug)]
pub(crate) struct TooDeep;

type Converted<'v> = Result<Box<dyn Val + 'v>, TooDeep>;

/// Converts the value of a variable for one record.
pub(crate) fn variable_to_cel(variable: Variable, record: &Record) -> Converted<'_> {
    Ok(match variable {
        Variable::EventName => Box::new(CelString::from(record.event.as_str())),
        Variable::Keys => item_to_cel(&record.keys, MAX_NESTING)?,
        Variable::Old => item_to_cel(&record.old, MAX_NESTING)?,
        Variable::New => item_to_cel(&record.new, MAX_NESTING)?,
        Variable::EventId => Box::new(CelString::from(record.event_id.as_str())),
        Variable::SequenceNumber => Box::new(CelString::from(record.sequence_number.as_str())),
        Variable::ApproximateCreationDateTime => {
            Box::new(CelInt::from(record.approximate_creation_time.0))
        }
        Variable::UserIdentity => {
            let mut map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = HashMap::new();
            if let Some(identity) = &record.user_identity {
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

fn item_to_cel(item: &Item, levels: usize) -> Converted<'_> {
    let levels = levels.checked_sub(1).ok_or(TooDeep)?;
    let map: HashMap<CelMapKey<'_>, _> = item
        .iter()
        .map(|(name, value)| Ok((name.as_str().into(), attribute_to_cel(value, levels)?)))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(CelMap::from(map)))
}

fn attribute_to_cel(value: &AttributeValue, levels: usize) -> Converted<'_> {
    Ok(match value {
        AttributeValue::S(text) => Box::new(CelString::from(text.as_str())),
        AttributeValue::N(text) => number_to_cel(text),
        AttributeValue::B(bytes) => Box::new(CelBytes::from(bytes.as_ref())),
        AttributeValue::Bool(value) => Box::new(CelBool::from(*value)),
        AttributeValue::Null => Box::new(CelNull),
        // A `BTreeSet` gives equal sets the same order.
        AttributeValue::Ss(set) => {
            list_to_cel(set.iter().map(|text| Ok(Box::new(CelString::from(text.as_str())) as _)))?
        }
        AttributeValue::Ns(set) => {
            list_to_cel(set.iter().map(|text| Ok(number_to_cel(text) as _)))?
        }
        AttributeValue::Bs(set) => {
            list_to_cel(set.iter().map(|bytes| Ok(Box::new(CelBytes::from(bytes.as_ref())) as _)))?
        }
        AttributeValue::L(elements) => {
            let levels = levels.checked_sub(1).ok_or(TooDeep)?;
            list_to_cel(elements.iter().map(|element| attribute_to_cel(element, levels)))?
        }
        AttributeValue::M(map) => item_to_cel(map, levels)?,
    })
}

fn list_to_cel<'v>(elements: impl Iterator<Item = Converted<'v>>) -> Converted<'v> {
    Ok(Box::new(CelList::from(elements.collect::<Result<Vec<_>, _>>()?)))
}
