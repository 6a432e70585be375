//! What a spec means for one record: judge a change, and say who is told what. Pure: no clock, no
//! I/O, and no record can make it fail or panic.
//!
//! [`Notifier::new`] refuses a spec that cannot work; after that nobody reads the raw spec to
//! judge. [`Notifier::judge`] looks at what is cheap first and allocates nothing for a change that
//! nobody is told of.

mod budget;
mod error;
mod expression;
mod filter;
mod library;
mod lookup;
mod message;
mod number;
mod strings;
mod syntax;
#[cfg(test)]
mod tests;
mod value;
mod view;

use std::collections::BTreeSet;

use bytes::Bytes;

pub use self::error::{InvalidRecord, InvalidSpec};
use self::expression::Expression;
use self::filter::Filter;
use self::message::Object;
use self::syntax::Variable;
use self::view::Needs;
use crate::api::{Event, StreamNotifierSpec};
use crate::record::{AttributeValue, Change, EventName, KeyNames};

/// The most fields a message may have; the schema has the same bound.
const MOST_FIELDS: usize = 32;

/// A spec, checked and compiled.
#[derive(Debug)]
pub struct Notifier {
    events: Vec<EventName>,
    filters: Vec<Filter>,
    attribute: Option<String>,
    /// `None` looks every connection up.
    lookup: Option<Expression>,
    /// `None` stands for the default: the keys and the attribute's new value.
    message: Option<Vec<(String, Expression)>>,
    /// The variables that any expression uses.
    uses: BTreeSet<Variable>,
    needs: Needs,
}

/// What is to be done about a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
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
}

impl Notifier {
    /// Checks and compiles a spec.
    pub fn new(spec: &StreamNotifierSpec) -> Result<Self, InvalidSpec> {
        library::environment().map_err(|error| {
            InvalidSpec::new("message", &format!("no expression can be evaluated: {error}"))
        })?;
        check_events(spec)?;
        let filters = filter::compile(&spec.key_filters)?;
        let lookup = spec.connections.value.as_deref();
        let lookup =
            lookup.map(|value| Expression::compile("connections.value", value)).transpose()?;
        let message = message_fields(spec)?;
        let expressions = || {
            let fields = message.iter().flatten().map(|(_, expression)| expression);
            lookup.iter().chain(fields)
        };
        let uses = expressions().flat_map(Expression::uses).copied().collect();
        let compares = spec.events.contains(&Event::Modify);
        let needs = Needs::new(spec.attribute.is_some(), compares, expressions());
        Ok(Self {
            events: spec.events.iter().map(|event| event_name(*event)).collect(),
            filters,
            attribute: spec.attribute.clone(),
            lookup,
            message,
            uses,
            needs,
        })
    }

    /// Whether a stream has the images that the fields need. `view` is its view type as AWS
    /// spells it.
    pub fn check_view(&self, has_old: bool, has_new: bool, view: &str) -> Result<(), InvalidSpec> {
        self.needs.check(has_old, has_new, view)
    }

    /// What is to be done about one change.
    pub fn judge(&self, keys: &KeyNames, change: &Change) -> Verdict {
        if !self.concerns(change) {
            return Verdict::Skip;
        }
        match self.notification(keys, change) {
            Ok(notification) => Verdict::Notify(notification),
            Err(invalid) => Verdict::Invalid(invalid),
        }
    }

    fn concerns(&self, change: &Change) -> bool {
        self.events.contains(&change.event)
            && self.filters.iter().all(|filter| filter.holds(&change.keys))
            && self.attribute.as_ref().is_none_or(|attribute| changed(attribute, change))
    }

    fn notification(
        &self,
        keys: &KeyNames,
        change: &Change,
    ) -> Result<Notification, InvalidRecord> {
        budget::refill();
        let context = expression::context(&self.uses, change)?;
        let lookup = self.lookup.as_ref().map(|lookup| {
            let value = lookup.evaluate(&context)?;
            lookup::key(value.as_ref()).map_err(|problem| lookup.invalid(&problem))
        });
        let lookup = lookup.transpose()?;
        let mut body = Object::new();
        match &self.message {
            Some(fields) => {
                for (name, expression) in fields {
                    let value = expression.evaluate(&context)?;
                    body.value(name, value.as_ref())
                        .map_err(|problem| expression.invalid(&problem))?;
                }
            }
            None => self.default_message(keys, change, &mut body)?,
        }
        Ok(Notification { lookup, body: body.finish() })
    }

    fn default_message(
        &self,
        keys: &KeyNames,
        change: &Change,
        body: &mut Object,
    ) -> Result<(), InvalidRecord> {
        let partition = ("pk", change.keys.get(&keys.partition));
        let sort = keys.sort.as_ref().map(|sort| ("sk", change.keys.get(sort)));
        let value = self.attribute.as_ref().map(|name| ("value", change.new.get(name)));
        for (name, value) in [Some(partition), sort, value].into_iter().flatten() {
            let value = value.ok_or("the record does not have it".to_owned());
            value
                .and_then(|value| body.attribute(name, value))
                .map_err(|problem| InvalidRecord::new(format!("message.{name}"), &problem))?;
        }
        Ok(())
    }
}

/// Whether the change gave the attribute a value that it did not have. Without an old image the
/// attribute had none.
fn changed(attribute: &str, change: &Change) -> bool {
    change.event != EventName::Remove
        && change
            .new
            .get(attribute)
            .is_some_and(|new| change.old.get(attribute).is_none_or(|old| old != new))
}

fn event_name(event: Event) -> EventName {
    match event {
        Event::Insert => EventName::Insert,
        Event::Modify => EventName::Modify,
        Event::Remove => EventName::Remove,
    }
}

fn check_events(spec: &StreamNotifierSpec) -> Result<(), InvalidSpec> {
    if spec.events.is_empty() {
        let problem = "is empty; name at least one of Insert, Modify, Remove, or leave it out";
        return Err(InvalidSpec::new("events", problem));
    }
    if spec.attribute.is_some() && spec.events.iter().all(|event| *event == Event::Remove) {
        let problem = "a removed item has no new value, so no change would ever count; add Insert \
            or Modify to events, or leave attribute out";
        return Err(InvalidSpec::new("attribute", problem));
    }
    Ok(())
}

fn message_fields(
    spec: &StreamNotifierSpec,
) -> Result<Option<Vec<(String, Expression)>>, InvalidSpec> {
    let Some(fields) = &spec.message else {
        return Ok(None);
    };
    if fields.is_empty() {
        let problem =
            "has no field: give it one at least, or leave it out for the default (pk, sk, value)";
        return Err(InvalidSpec::new("message", problem));
    }
    if fields.len() > MOST_FIELDS {
        let problem = format!("has more than {MOST_FIELDS} fields; one field may be a list or map");
        return Err(InvalidSpec::new("message", &problem));
    }
    let compile = |(name, source): (&String, &String)| {
        Ok((name.clone(), Expression::compile(format!("message.{name}"), source)?))
    };
    fields.iter().map(compile).collect::<Result<_, _>>().map(Some)
}
