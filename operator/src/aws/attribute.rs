//! Converts attribute values to and from the types of the DynamoDB SDK.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as Sdk;
use bytes::Bytes;

use crate::model::{AttributeValue, Item};

fn value_from_sdk(value: Sdk) -> AttributeValue {
    match value {
        Sdk::S(text) => AttributeValue::S(text),
        Sdk::N(number) => AttributeValue::N(number),
        Sdk::B(blob) => AttributeValue::B(Bytes::from(blob.into_inner())),
        Sdk::Bool(value) => AttributeValue::Bool(value),
        Sdk::Ss(texts) => AttributeValue::Ss(texts.into_iter().collect()),
        Sdk::Ns(numbers) => AttributeValue::Ns(numbers.into_iter().collect()),
        Sdk::Bs(blobs) => AttributeValue::Bs(
            blobs.into_iter().map(|blob| Bytes::from(blob.into_inner())).collect(),
        ),
        Sdk::L(values) => AttributeValue::L(values.into_iter().map(value_from_sdk).collect()),
        Sdk::M(values) => AttributeValue::M(item_from_sdk(values)),
        Sdk::Null(_) => AttributeValue::Null,
        // The types of DynamoDB are a closed set. The enum is open only for future SDK versions.
        _ => AttributeValue::Null,
    }
}

/// Converts an item of a response.
pub fn item_from_sdk(item: HashMap<String, Sdk>) -> Item {
    item.into_iter().map(|(name, value)| (name, value_from_sdk(value))).collect()
}

/// Converts a value for a request.
pub fn value_to_sdk(value: &AttributeValue) -> Sdk {
    match value {
        AttributeValue::S(text) => Sdk::S(text.clone()),
        AttributeValue::N(number) => Sdk::N(number.clone()),
        AttributeValue::B(bytes) => Sdk::B(Blob::new(bytes.to_vec())),
        AttributeValue::Bool(value) => Sdk::Bool(*value),
        AttributeValue::Null => Sdk::Null(true),
        AttributeValue::Ss(texts) => Sdk::Ss(texts.iter().cloned().collect()),
        AttributeValue::Ns(numbers) => Sdk::Ns(numbers.iter().cloned().collect()),
        AttributeValue::Bs(blobs) => {
            Sdk::Bs(blobs.iter().map(|bytes| Blob::new(bytes.to_vec())).collect())
        }
        AttributeValue::L(values) => Sdk::L(values.iter().map(value_to_sdk).collect()),
        AttributeValue::M(values) => Sdk::M(item_to_sdk(values)),
    }
}

/// Converts an item, or the key of an item, for a request.
pub fn item_to_sdk(item: &Item) -> HashMap<String, Sdk> {
    item.iter().map(|(name, value)| (name.clone(), value_to_sdk(value))).collect()
}
