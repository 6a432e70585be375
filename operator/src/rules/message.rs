//! Writes a message as JSON. The same values give the same bytes, whether they come from CEL or
//! from the record.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;

use crate::model::{AttributeValue, Item};
use crate::rules::cel::number::{Decimal, is_json_number};
use crate::rules::cel::value::MAX_NESTING;

/// Writes a JSON object without spaces, with its fields in the order in which they are added.
pub(crate) struct JsonObjectWriter {
    text: Vec<u8>,
}

impl JsonObjectWriter {
    pub(crate) fn new() -> Self {
        Self { text: vec![b'{'] }
    }

    /// Adds a field with the value of an expression.
    pub(crate) fn add_value(&mut self, name: &str, value: &dyn Val) -> Result<(), String> {
        self.write_name(name);
        write_value(&mut self.text, value)
    }

    /// Adds a field with the value of an attribute.
    pub(crate) fn add_attribute(
        &mut self,
        name: &str,
        value: &AttributeValue,
    ) -> Result<(), String> {
        self.write_name(name);
        write_attribute(&mut self.text, value, MAX_NESTING)
    }

    fn write_name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        write_text(&mut self.text, name);
        self.text.push(b':');
    }

    pub(crate) fn finish(mut self) -> bytes::Bytes {
        self.text.push(b'}');
        self.text.into()
    }
}

fn write_value(out: &mut Vec<u8>, value: &dyn Val) -> Result<(), String> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        write_text(out, text.inner());
    } else if let Some(int) = value.downcast_ref::<CelInt>() {
        out.extend(int.to_string().bytes());
    } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
        out.extend(uint.to_string().bytes());
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        if !double.is_finite() {
            return Err("gives a double that is not finite, which JSON cannot represent".to_owned());
        }
        out.extend(double.to_string().bytes());
    } else if let Some(decimal) = value.downcast_ref::<Decimal>() {
        write_number(out, decimal.text());
    } else if let Some(bool) = value.downcast_ref::<CelBool>() {
        out.extend(bool.to_string().bytes());
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.extend(b"null");
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        write_bytes(out, bytes.inner());
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        write_sequence(out, b"[]", list.iter(), |out, value| write_value(out, value.as_ref()))?;
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        write_map(out, map)?;
    } else {
        let kind = value.get_type().name();
        return Err(format!(
            "gives {kind}, which JSON cannot represent; use string(), double() or, for an \
             optional, orValue()"
        ));
    }
    Ok(())
}

fn write_map(out: &mut Vec<u8>, map: &CelMap) -> Result<(), String> {
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map.iter() {
        let CelMapKey::String(key) = key else {
            return Err(
                "gives a map with a key that is not a string; JSON requires string keys".to_owned()
            );
        };
        entries.push((key.inner(), value));
    }
    // A CEL map has no order, but the same record must give the same bytes.
    entries.sort_by_key(|(key, _)| *key);
    write_sequence(out, b"{}", entries, |out, (key, value)| {
        write_text(out, key);
        out.push(b':');
        write_value(out, value.as_ref())
    })
}

fn write_attribute(out: &mut Vec<u8>, value: &AttributeValue, levels: usize) -> Result<(), String> {
    let levels = levels
        .checked_sub(1)
        .ok_or_else(|| format!("the attribute is nested deeper than {MAX_NESTING} levels"))?;
    match value {
        AttributeValue::S(text) => write_text(out, text),
        AttributeValue::N(text) => write_number(out, text),
        AttributeValue::B(bytes) => write_bytes(out, bytes),
        AttributeValue::Bool(value) => out.extend(value.to_string().bytes()),
        AttributeValue::Null => out.extend(b"null"),
        AttributeValue::Ss(set) => write_set(out, set, |out, text| write_text(out, text))?,
        AttributeValue::Ns(set) => write_set(out, set, |out, text| write_number(out, text))?,
        AttributeValue::Bs(set) => write_set(out, set, |out, bytes| write_bytes(out, bytes))?,
        AttributeValue::L(list) => {
            write_sequence(out, b"[]", list, |out, value| write_attribute(out, value, levels))?;
        }
        AttributeValue::M(map) => write_item(out, map, levels)?,
    }
    Ok(())
}

fn write_item(out: &mut Vec<u8>, item: &Item, levels: usize) -> Result<(), String> {
    write_sequence(out, b"{}", item.iter(), |out, (name, value)| {
        write_text(out, name);
        out.push(b':');
        write_attribute(out, value, levels)
    })
}

fn write_set<T>(
    out: &mut Vec<u8>,
    set: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) -> Result<(), String> {
    write_sequence(out, b"[]", set, |out, element| {
        write(out, element);
        Ok(())
    })
}

fn write_sequence<T>(
    out: &mut Vec<u8>,
    [open, close]: &[u8; 2],
    elements: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), String>,
) -> Result<(), String> {
    out.push(*open);
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element)?;
    }
    out.push(*close);
    Ok(())
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Infallible, unlike the serializer: every string has a JSON form.
    out.extend(serde_json::Value::from(text).to_string().bytes());
}

/// Writes a number with all its digits: as a number if JSON's grammar allows it, else as a string.
fn write_number(out: &mut Vec<u8>, text: &str) {
    if is_json_number(text) {
        out.extend(text.bytes());
    } else {
        write_text(out, text);
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_text(out, &STANDARD.encode(bytes));
}
