//! A checked and compiled spec, which decides for each record whether to send a message, and to
//! which connections.
//!
//! [`CompiledSpec::new`] rejects a spec that cannot work. After that, decisions use only the
//! compiled form. They use no clock and no I/O, and no record can make them panic.
//! [`CompiledSpec::decide`] checks cheap conditions first. It allocates nothing for a record that
//! they skip.

#[cfg(test)]
pub mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::cel::expression::{Expression, build_context};
use super::cel::instrument::Variable;
use super::cel::key_value::to_key_value;
use super::cel::{cost, functions};
use super::error::{InvalidRecord, InvalidSpec};
use super::key_filter::{self, KeyFilter};
use super::message::JsonObjectWriter;
use super::pattern::PatternBudget;
use super::required_images::required_images;
use crate::api::{ChangeKind, OversizePolicy, StreamNotifierSpec};
use crate::model::{AttributeValue, EventName, KeySchema, Record, RequiredImages};

/// The maximum number of fields of a message. The schema has the same bound.
const MAX_MESSAGE_FIELDS: usize = 32;

/// A checked and compiled spec.
#[derive(Debug)]
pub struct CompiledSpec {
    events: Vec<EventName>,
    key_filters: Vec<KeyFilter>,
    attribute: Option<String>,
    filter: Option<Expression>,
    /// The lookup value. `None` looks up every connection.
    lookup: Option<Expression>,
    /// The fields of the message. `None` means the default: the keys, and the new value of
    /// `attribute`.
    message: Option<Vec<(String, Expression)>>,
    /// The variables that at least one expression uses.
    variables: BTreeSet<Variable>,
    required_images: RequiredImages,
    /// Whether an oversized message is replaced by the item's keys.
    has_keys_only_fallback: bool,
}

/// The decision on a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The spec does not match the record.
    Skip,
    /// The spec matches the record.
    Notify(Notification),
    /// An expression has no usable value, so the message or its recipients are unknown.
    Invalid(InvalidRecord),
}

/// A message and its recipients.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The partition key value by which connections are looked up. `None` means every connection.
    pub lookup: Option<AttributeValue>,
    /// The message, a JSON object.
    pub body: Bytes,
    /// The replacement if the message is too large, with `oversize: KeysOnly`.
    pub keys_only: Option<Bytes>,
}

impl CompiledSpec {
    /// Checks and compiles a spec.
    pub fn new(spec: &StreamNotifierSpec) -> Result<Self, InvalidSpec> {
        functions::environment().map_err(|error| {
            InvalidSpec::new("message", &format!("the CEL environment is not available: {error}"))
        })?;
        check_events(spec)?;
        let mut budget = PatternBudget::new();
        let key_filters = key_filter::compile(&spec.key_filters, &mut budget)?;
        let mut compile = |field, source: &Option<String>| {
            source.as_ref().map(|it| Expression::compile(field, it, &mut budget)).transpose()
        };
        let filter = compile("filter", &spec.filter)?;
        let lookup = compile("connections.value", &spec.connections.value)?;
        let message = compile_message(spec, &mut budget)?;
        let expressions = || {
            let fields = message.iter().flatten().map(|(_, expression)| expression);
            filter.iter().chain(&lookup).chain(fields)
        };
        let variables = expressions().flat_map(Expression::variables).copied().collect();
        let compares_images = spec.events.contains(&ChangeKind::Modify);
        let required_images =
            required_images(spec.attribute.is_some(), compares_images, expressions());
        Ok(Self {
            events: spec.events.iter().map(|event| event_name(*event)).collect(),
            key_filters,
            attribute: spec.attribute.clone(),
            filter,
            lookup,
            message,
            variables,
            required_images,
            has_keys_only_fallback: spec.delivery.oversize == OversizePolicy::KeysOnly,
        })
    }

    /// The images that the records of a stream must carry for this spec.
    pub fn required_images(&self) -> &RequiredImages {
        &self.required_images
    }

    /// Whether a record passes all conditions except patterns and expressions. These are cheap
    /// enough to check on the threads that serve the network.
    pub fn matches_prefilter(&self, record: &Record) -> bool {
        self.events.contains(&record.event)
            && self.key_filters.iter().all(|filter| filter.matches_literals(&record.keys))
            && self.attribute.as_ref().is_none_or(|attribute| has_new_value(attribute, record))
    }

    /// Decides on a record that passed the prefilter, by patterns and expressions. This can take
    /// up to 70 ms.
    pub fn evaluate(&self, keys: &KeySchema, record: &Record) -> Decision {
        if !self.key_filters.iter().all(|filter| filter.matches_pattern(&record.keys)) {
            return Decision::Skip;
        }
        match self.evaluate_expressions(keys, record) {
            Ok(Some(notification)) => Decision::Notify(notification),
            Ok(None) => Decision::Skip,
            Err(invalid) => Decision::Invalid(invalid),
        }
    }

    fn evaluate_expressions(
        &self,
        keys: &KeySchema,
        record: &Record,
    ) -> Result<Option<Notification>, InvalidRecord> {
        cost::reset();
        let context = build_context(&self.variables, record)?;
        if let Some(filter) = &self.filter
            && !filter.evaluate_bool(&context)?
        {
            return Ok(None);
        }
        let lookup = self.lookup.as_ref().map(|lookup| {
            let value = lookup.evaluate(&context)?;
            to_key_value(value.as_ref()).map_err(|problem| lookup.invalid_record(&problem))
        });
        let lookup = lookup.transpose()?;
        let mut body = JsonObjectWriter::new();
        match &self.message {
            Some(fields) => {
                for (name, expression) in fields {
                    let value = expression.evaluate(&context)?;
                    let cost =
                        cost::size(value.as_ref()).saturating_mul(cost::COST_PER_CREATED_BYTE);
                    cost::charge(cost).map_err(|error| expression.evaluation_error(&error))?;
                    body.add_value(name, value.as_ref())
                        .map_err(|problem| expression.invalid_record(&problem))?;
                }
            }
            None => self.write_default_message(keys, record, &mut body)?,
        }
        let fallback = || keys_only_message(keys, record);
        let keys_only = self.has_keys_only_fallback.then(fallback).transpose()?;
        Ok(Some(Notification { lookup, body: body.finish(), keys_only }))
    }

    fn write_default_message(
        &self,
        keys: &KeySchema,
        record: &Record,
        body: &mut JsonObjectWriter,
    ) -> Result<(), InvalidRecord> {
        write_keys(keys, record, body)?;
        match &self.attribute {
            Some(name) => write_attribute("value", record.new.get(name), body),
            None => Ok(()),
        }
    }
}

/// The item's keys, and the field `truncated`.
fn keys_only_message(keys: &KeySchema, record: &Record) -> Result<Bytes, InvalidRecord> {
    let mut body = JsonObjectWriter::new();
    write_keys(keys, record, &mut body)?;
    write_attribute("truncated", Some(&AttributeValue::Bool(true)), &mut body)?;
    Ok(body.finish())
}

fn write_keys(
    keys: &KeySchema,
    record: &Record,
    body: &mut JsonObjectWriter,
) -> Result<(), InvalidRecord> {
    write_attribute("pk", record.keys.get(&keys.partition), body)?;
    match &keys.sort {
        Some(sort) => write_attribute("sk", record.keys.get(sort), body),
        None => Ok(()),
    }
}

fn write_attribute(
    name: &str,
    value: Option<&AttributeValue>,
    body: &mut JsonObjectWriter,
) -> Result<(), InvalidRecord> {
    value
        .ok_or("the record does not have this attribute".to_owned())
        .and_then(|value| body.add_attribute(name, value))
        .map_err(|problem| InvalidRecord::new(format!("message.{name}"), &problem))
}

/// Whether the change set the attribute to a value that it did not have before. A missing old
/// image counts as a missing attribute.
fn has_new_value(attribute: &str, record: &Record) -> bool {
    record.event != EventName::Remove
        && record
            .new
            .get(attribute)
            .is_some_and(|new| record.old.get(attribute).is_none_or(|old| old != new))
}

fn event_name(event: ChangeKind) -> EventName {
    match event {
        ChangeKind::Insert => EventName::Insert,
        ChangeKind::Modify => EventName::Modify,
        ChangeKind::Remove => EventName::Remove,
    }
}

fn check_events(spec: &StreamNotifierSpec) -> Result<(), InvalidSpec> {
    if spec.events.is_empty() {
        let problem = "is empty; name at least one of Insert, Modify, Remove, or remove this field";
        return Err(InvalidSpec::new("events", problem));
    }
    if spec.attribute.is_some() && spec.events.iter().all(|event| *event == ChangeKind::Remove) {
        let problem = "a removed item has no new value, so no record would match; add Insert or \
            Modify to events, or remove this field";
        return Err(InvalidSpec::new("attribute", problem));
    }
    Ok(())
}

fn compile_message(
    spec: &StreamNotifierSpec,
    budget: &mut PatternBudget,
) -> Result<Option<Vec<(String, Expression)>>, InvalidSpec> {
    let Some(fields) = &spec.message else {
        return Ok(None);
    };
    if fields.is_empty() {
        let problem =
            "has no field; add one, or remove message for the default fields pk, sk and value";
        return Err(InvalidSpec::new("message", problem));
    }
    if fields.len() > MAX_MESSAGE_FIELDS {
        let problem = format!(
            "has more than {MAX_MESSAGE_FIELDS} fields; combine several of them in a list or map"
        );
        return Err(InvalidSpec::new("message", &problem));
    }
    let compile = |(name, source): (&String, &String)| {
        Ok((name.clone(), Expression::compile(format!("message.{name}"), source, budget)?))
    };
    fields.iter().map(compile).collect::<Result<_, _>>().map(Some)
}
