//! What a spec means for one record: judge a change, and say who is told what. Pure: no clock, no
//! I/O, and no record can make it fail or panic.
//!
//! [`Notifier::new`] refuses a spec that cannot work; after that nobody reads the raw spec to
//! judge. [`Notifier::judge`] looks at what is cheap first and allocates nothing for a change that
//! nobody is told of.

#[cfg(test)]
pub mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::error::{InvalidRecord, InvalidSpec};
use super::key_filter::KeyFilter;
use super::message::JsonObjectWriter;
use crate::api::{ChangeKind, OversizePolicy, StreamNotifierSpec};
use crate::model::{AttributeValue, EventName, KeySchema, Record, RequiredImages};
use crate::rules::cel::expression::Expression;
use crate::rules::cel::instrument::Variable;

/// The most fields a message may have; the schema has the same bound.
const MAX_FIELDS: usize = 32;

/// A spec, checked and compiled.
#[derive(Debug)]
pub struct CompiledSpec {
    events: Vec<EventName>,
    key_filters: Vec<KeyFilter>,
    attribute: Option<String>,
    filter: Option<Expression>,
    /// `None` looks every connection up.
    lookup: Option<Expression>,
    /// `None` stands for the default: the keys and the attribute's new value.
    message: Option<Vec<(String, Expression)>>,
    /// The variables that any expression uses.
    variables: BTreeSet<Variable>,
    required_images: RequiredImages,
    /// Whether a message that is too large is made shorter.
    has_keys_only_fallback: bool,
}

/// What is to be done about a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nobody is told.
    Skip,
    /// These connections are told this.
    Notify(Notification),
    /// Somebody should be told, but it cannot be said who or what.
    Invalid(InvalidRecord),
}

/// Who is told, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The partition key by which connections are looked up; `None` for every connection.
    pub lookup: Option<AttributeValue>,
    /// The message, a JSON object.
    pub body: Bytes,
    /// What is sent instead if that is too large, where the spec wants that.
    pub keys_only: Option<Bytes>,
}

impl CompiledSpec {
    /// Checks and compiles a spec.
    pub fn new(spec: &StreamNotifierSpec) -> Result<Self, InvalidSpec> {
        crate::rules::cel::functions::environment().map_err(|error| {
            InvalidSpec::new("message", &format!("no expression can be evaluated: {error}"))
        })?;
        check_events(spec)?;
        let mut left = super::pattern::PatternBudget::new();
        let key_filters = super::key_filter::compile(&spec.key_filters, &mut left)?;
        let mut compile = |field, source: &Option<String>| {
            source.as_ref().map(|it| Expression::compile(field, it, &mut left)).transpose()
        };
        let filter = compile("filter", &spec.filter)?;
        let lookup = compile("connections.value", &spec.connections.value)?;
        let message = message_fields(spec, &mut left)?;
        let expressions = || {
            let fields = message.iter().flatten().map(|(_, expression)| expression);
            filter.iter().chain(&lookup).chain(fields)
        };
        let uses = expressions().flat_map(Expression::uses).copied().collect();
        let compares = spec.events.contains(&ChangeKind::Modify);
        let required_images = super::required_images::required_images(
            spec.attribute.is_some(),
            compares,
            expressions(),
        );
        Ok(Self {
            events: spec.events.iter().map(|event| event_name(*event)).collect(),
            key_filters,
            attribute: spec.attribute.clone(),
            filter,
            lookup,
            message,
            variables: uses,
            required_images,
            has_keys_only_fallback: spec.delivery.oversize == OversizePolicy::KeysOnly,
        })
    }

    /// The images that the records of a stream must carry for this spec.
    pub fn required_images(&self) -> &RequiredImages {
        &self.required_images
    }

    /// What is to be done about one change.
    pub fn decide(&self, keys: &KeySchema, change: &Record) -> Decision {
        if self.matches_prefilter(change) { self.evaluate(keys, change) } else { Decision::Skip }
    }

    /// Whether a change passes everything but the patterns and expressions. It takes no time to speak
    /// of.
    pub fn matches_prefilter(&self, change: &Record) -> bool {
        self.events.contains(&change.event)
            && self.key_filters.iter().all(|filter| filter.holds(&change.keys))
            && self.attribute.as_ref().is_none_or(|attribute| changed(attribute, change))
    }

    /// What patterns and expressions say of a change that passes everything else. It may take long.
    pub fn evaluate(&self, keys: &KeySchema, change: &Record) -> Decision {
        if !self.key_filters.iter().all(|filter| filter.matches(&change.keys)) {
            return Decision::Skip;
        }
        match self.notification(keys, change) {
            Ok(Some(notification)) => Decision::Notify(notification),
            Ok(None) => Decision::Skip,
            Err(invalid) => Decision::Invalid(invalid),
        }
    }

    fn notification(
        &self,
        keys: &KeySchema,
        change: &Record,
    ) -> Result<Option<Notification>, InvalidRecord> {
        crate::rules::cel::cost::reset();
        let context = crate::rules::cel::expression::context(&self.variables, change)?;
        if let Some(filter) = &self.filter
            && !filter.holds(&context)?
        {
            return Ok(None);
        }
        let lookup = self.lookup.as_ref().map(|lookup| {
            let value = lookup.evaluate(&context)?;
            crate::rules::cel::key_value::to_key_value(value.as_ref())
                .map_err(|problem| lookup.invalid(&problem))
        });
        let lookup = lookup.transpose()?;
        let mut body = JsonObjectWriter::new();
        match &self.message {
            Some(fields) => {
                for (name, expression) in fields {
                    let value = expression.evaluate(&context)?;
                    let cost = crate::rules::cel::cost::size(value.as_ref())
                        .saturating_mul(crate::rules::cel::cost::COST_OF_MAKING);
                    crate::rules::cel::cost::charge(cost)
                        .map_err(|error| expression.failed(&error))?;
                    body.value(name, value.as_ref())
                        .map_err(|problem| expression.invalid(&problem))?;
                }
            }
            None => self.default_message(keys, change, &mut body)?,
        }
        let keys_only = self.has_keys_only_fallback.then(|| keys_only(keys, change)).transpose()?;
        Ok(Some(Notification { lookup, body: body.finish(), keys_only }))
    }

    fn default_message(
        &self,
        keys: &KeySchema,
        change: &Record,
        body: &mut JsonObjectWriter,
    ) -> Result<(), InvalidRecord> {
        write_keys(keys, change, body)?;
        match &self.attribute {
            Some(name) => write_attribute("value", change.new.get(name), body),
            None => Ok(()),
        }
    }
}

/// The item's keys, and that the message is not all there is.
fn keys_only(keys: &KeySchema, change: &Record) -> Result<Bytes, InvalidRecord> {
    let mut body = JsonObjectWriter::new();
    write_keys(keys, change, &mut body)?;
    write_attribute("truncated", Some(&AttributeValue::Bool(true)), &mut body)?;
    Ok(body.finish())
}

fn write_keys(
    keys: &KeySchema,
    change: &Record,
    body: &mut JsonObjectWriter,
) -> Result<(), InvalidRecord> {
    write_attribute("pk", change.keys.get(&keys.partition), body)?;
    match &keys.sort {
        Some(sort) => write_attribute("sk", change.keys.get(sort), body),
        None => Ok(()),
    }
}

fn write_attribute(
    name: &str,
    value: Option<&AttributeValue>,
    body: &mut JsonObjectWriter,
) -> Result<(), InvalidRecord> {
    value
        .ok_or("the record does not have it".to_owned())
        .and_then(|value| body.attribute(name, value))
        .map_err(|problem| InvalidRecord::new(format!("message.{name}"), &problem))
}

/// Whether the change gave the attribute a value that it did not have. Without an old image the
/// attribute had none.
fn changed(attribute: &str, change: &Record) -> bool {
    change.event != EventName::Remove
        && change
            .new
            .get(attribute)
            .is_some_and(|new| change.old.get(attribute).is_none_or(|old| old != new))
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

fn message_fields(
    spec: &StreamNotifierSpec,
    left: &mut super::pattern::PatternBudget,
) -> Result<Option<Vec<(String, Expression)>>, InvalidSpec> {
    let Some(fields) = &spec.message else {
        return Ok(None);
    };
    if fields.is_empty() {
        let problem =
            "has no field; add one, or remove message for the default fields pk, sk and value";
        return Err(InvalidSpec::new("message", problem));
    }
    if fields.len() > MAX_FIELDS {
        let problem = format!("has more than {MAX_FIELDS} fields; one field may be a list or map");
        return Err(InvalidSpec::new("message", &problem));
    }
    let compile = |(name, source): (&String, &String)| {
        Ok((name.clone(), Expression::compile(format!("message.{name}"), source, left)?))
    };
    fields.iter().map(compile).collect::<Result<_, _>>().map(Some)
}
