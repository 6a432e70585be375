//! Converts the lookup value to a partition key that DynamoDB accepts.
//!
//! An unusable value is detected here, so that only its record is invalid. DynamoDB would reject
//! the query with the error of a misconfigured table, and all other records would wait.

use bytes::Bytes;
use cel::common::types::{CelBytes, CelDouble, CelInt, CelString, CelUInt};
use cel::common::value::Val;

use super::number::{Decimal, is_json_number};
use crate::model::AttributeValue;

/// The maximum length of a partition key, in bytes.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_KEY_BYTES: usize = 2_048;
/// The magnitudes of DynamoDB's numbers, besides zero.
const MAGNITUDES: std::ops::Range<f64> = 1e-130..1e126;

/// Converts the value of an expression, or returns the problem.
pub(crate) fn to_key_value(value: &dyn Val) -> Result<AttributeValue, String> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        check_length(text.len())?;
        Ok(AttributeValue::S(text.inner().to_owned()))
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        check_length(bytes.inner().len())?;
        Ok(AttributeValue::B(Bytes::copy_from_slice(bytes.inner())))
    } else if let Some(int) = value.downcast_ref::<CelInt>() {
        Ok(AttributeValue::N(int.to_string()))
    } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
        Ok(AttributeValue::N(uint.to_string()))
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        to_number(double.to_string(), *double.inner())
    } else if let Some(decimal) = value.downcast_ref::<Decimal>() {
        to_number(decimal.text().to_owned(), decimal.to_double())
    } else {
        let kind = value.get_type().name();
        Err(format!("gives {kind}, but a key must be a string, number or binary"))
    }
}

fn check_length(bytes: usize) -> Result<(), String> {
    match bytes {
        0 => Err("gives an empty value, but a key must not be empty".to_owned()),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err(format!("gives more than {MAX_KEY_BYTES} bytes, the maximum of a key")),
    }
}

fn to_number(text: String, value: f64) -> Result<AttributeValue, String> {
    if is_json_number(&text) && (value == 0.0 || MAGNITUDES.contains(&value.abs())) {
        Ok(AttributeValue::N(text))
    } else {
        Err("gives a number that DynamoDB cannot store".to_owned())
    }
}
