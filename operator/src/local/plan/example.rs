//! A change that the manifest tells somebody about, to be pasted or clicked: key values that pass
//! its filters, the attribute it watches, and the query value of a client that hears of it.
//!
//! Derived from the manifest's text alone. Where that says too little (a `matches` filter, an
//! expression that computes), `certain` is false and the user is told to look.

use regex::Regex;
use serde_json::{Value, json};

use super::expression_text::{SplitExpr, key_names, members, sole_member, split_exprs};
use crate::api::{KeyFilter, StreamNotifierSpec};
use crate::local::plan::Plan;

/// What stands in an example where the manifest does not care.
const EXAMPLE_VALUES: [&str; 2] = ["fuga", "hoge"];

/// An example of a change, and of a client that hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The item's key: attribute and value (strings), partition key first.
    pub key: Vec<(String, String)>,
    /// The attribute that changes, from the number 80 to the number 90.
    pub attribute: String,
    /// An attribute that the lookup reads from the item, with its value.
    pub also: Option<(String, String)>,
    /// The query parameter that a client connects with; `None` where every client is told.
    /// Example: `SK`.
    pub parameter: Option<String>,
    /// Its value. Example: `hoge`.
    pub lookup: String,
    /// Whether the example is known to match, as far as keys and lookup go.
    pub certain: bool,
}

impl Example {
    /// The example of this spec, with its tables' names.
    pub fn of(spec: &StreamNotifierSpec, plan: &Plan) -> Self {
        let cuts = all_cuts(spec);
        let mut certain = true;
        let key: Vec<(String, String)> = plan
            .items
            .key_attributes()
            .into_iter()
            .zip(EXAMPLE_VALUES)
            .map(|(name, word)| {
                let filter = spec.key_filters.iter().find(|filter| filter.key == name);
                let value = key_value(name, word, filter, &cuts);
                certain &= filter.is_none_or(|filter| passes(filter, &value));
                (name.to_owned(), value)
            })
            .collect();
        let (lookup, also) = lookup_value(spec, &key);
        Self {
            attribute: changed_attribute(spec),
            parameter: parameter(spec),
            certain: certain && (lookup.is_some() || spec.connections.value.is_none()),
            lookup: lookup.unwrap_or_else(|| EXAMPLE_VALUES[1].to_owned()),
            key,
            also,
        }
    }

    /// The key as DynamoDB's JSON.
    pub fn key_json(&self) -> Value {
        self.key.iter().map(|(name, value)| (name.clone(), json!({ "S": value }))).collect()
    }
}

fn all_cuts(spec: &StreamNotifierSpec) -> Vec<SplitExpr> {
    let message = spec.message.iter().flat_map(|message| message.values());
    message.chain(&spec.connections.value).flat_map(|expression| split_exprs(expression)).collect()
}

/// `target_pk#fuga` of `contains: target_pk` and `split('#')[1]`.
fn key_value(name: &str, word: &str, filter: Option<&KeyFilter>, cuts: &[SplitExpr]) -> String {
    if let Some(whole) = filter.and_then(|filter| filter.equals.clone()) {
        return whole;
    }
    let part = |pick: fn(&KeyFilter) -> &Option<String>| {
        filter.and_then(|filter| pick(filter).clone()).unwrap_or_default()
    };
    let (prefix, suffix) = (part(|filter| &filter.prefix), part(|filter| &filter.suffix));
    let mut value = prefix;
    let contains = part(|filter| &filter.contains);
    if !value.contains(&contains) {
        value.push_str(&contains);
    }
    // As many parts as the expressions take, each of them not empty.
    for cut in cuts.iter().filter(|cut| cut.key == name && !cut.separator.is_empty()) {
        while value.split(&cut.separator).count() <= cut.index {
            if value.is_empty() || value.ends_with(&cut.separator) {
                value.push_str(name);
            }
            value.push_str(&cut.separator);
        }
        if value.ends_with(&cut.separator) {
            value.push_str(word);
        }
    }
    if value.is_empty() || filter.is_some_and(|filter| filter.prefix.as_ref() == Some(&value)) {
        value.push_str(word);
    }
    if !value.ends_with(&suffix) {
        value.push_str(&suffix);
    }
    value
}

fn passes(filter: &KeyFilter, value: &str) -> bool {
    let holds = |wanted: &Option<String>, test: fn(&str, &str) -> bool| {
        wanted.as_ref().is_none_or(|wanted| test(value, wanted))
    };
    holds(&filter.equals, |value, wanted| value == wanted)
        && holds(&filter.prefix, |value, wanted| value.starts_with(wanted))
        && holds(&filter.suffix, |value, wanted| value.ends_with(wanted))
        && holds(&filter.contains, |value, wanted| value.contains(wanted))
        && holds(&filter.matches, |value, wanted| {
            Regex::new(wanted).is_ok_and(|pattern| pattern.is_match(value))
        })
}

/// What `connections.value` gives for the example's key, and the attribute it reads it from.
fn lookup_value(
    spec: &StreamNotifierSpec,
    key: &[(String, String)],
) -> (Option<String>, Option<(String, String)>) {
    let Some(expression) = spec.connections.value.as_deref().map(str::trim) else {
        return (None, None);
    };
    let value_of = |name: &str| key.iter().find(|(known, _)| known == name).map(|(_, v)| v);
    if let Some(attribute) = sole_member(expression, "new") {
        let word = EXAMPLE_VALUES[1].to_owned();
        let also = (spec.attribute.as_ref() != Some(&attribute)).then(|| (attribute, word.clone()));
        return (also.is_some().then_some(word), also);
    }
    if let Some(name) = sole_member(expression, "keys") {
        return (value_of(&name).cloned(), None);
    }
    let cut = split_exprs(expression).into_iter().next();
    let part = cut.filter(|_| expression.starts_with("keys") && expression.ends_with(']'));
    let part = part.and_then(|cut| {
        value_of(&cut.key)?.split(&cut.separator).nth(cut.index).map(str::to_owned)
    });
    (part, None)
}

fn changed_attribute(spec: &StreamNotifierSpec) -> String {
    let lookup = spec.connections.value.as_ref().and_then(|value| sole_member(value, "new"));
    let named = spec
        .message
        .iter()
        .flat_map(|message| message.values())
        .flat_map(|expression| members(expression, "new"))
        .map(|(name, _)| name)
        .find(|name| Some(name) != lookup.as_ref());
    spec.attribute.clone().or(named).unwrap_or_else(|| "value".to_owned())
}

/// `partitionKey` as the lookup's key attribute spells it: `SK` for `sk` in the origin's manifest.
fn parameter(spec: &StreamNotifierSpec) -> Option<String> {
    let name = spec.connections.partition_key.as_ref()?;
    let named = spec.connections.value.as_deref().map(key_names);
    let spelled = named
        .into_iter()
        .flatten()
        .find(|key| key.eq_ignore_ascii_case(name) && key.chars().all(|c| c != ' '));
    spelled.or_else(|| Some(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::{origin, spec_with};

    fn example(spec: &StreamNotifierSpec) -> Example {
        Example::of(spec, &Plan::of(spec, &[]).unwrap())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_origins_manifest_gives_its_example() {
        assert_eq!(
            example(&origin().spec),
            Example {
                key: vec![pair("PK", "target_pk#fuga"), pair("SK", "target_sk#hoge")],
                attribute: "TargetAttribute".to_owned(),
                also: None,
                parameter: Some("SK".to_owned()),
                lookup: "hoge".to_owned(),
                certain: true,
            }
        );
    }

    #[test]
    fn the_lookup_may_be_an_attribute_of_the_item() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] = json!([{"key": "orderId", "prefix": "order-"}]);
            spec["message"] = json!({"id": "keys.orderId"});
            spec["connections"]["partitionKey"] = json!("room");
            spec["connections"]["value"] = json!("new.room");
        });
        let example = example(&spec);
        assert_eq!(example.key, [pair("orderId", "order-fuga")]);
        assert_eq!(example.also, Some(pair("room", "hoge")));
        assert_eq!((example.parameter.as_deref(), example.certain), (Some("room"), true));
    }

    #[test]
    fn parts_are_made_as_far_as_they_are_taken() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] =
                json!([{"key": "PK", "suffix": "!"}, {"key": "SK", "equals": "x"}]);
            spec["message"] = json!({"a": "keys.PK.split('|')[2]"});
            spec["connections"]["value"] = json!("keys.PK");
        });
        let example = example(&spec);
        assert_eq!(example.key, [pair("PK", "PK|PK|fuga!"), pair("SK", "x")]);
        assert_eq!(example.lookup, "PK|PK|fuga!");
    }

    #[test]
    fn where_everybody_is_told_a_client_says_nothing() {
        let spec = spec_with(|spec| {
            let connections = spec["connections"].as_object_mut().unwrap();
            connections.remove("partitionKey");
            connections.remove("value");
        });
        let example = example(&spec);
        assert_eq!((example.parameter, example.certain), (None, true));
    }

    #[test]
    fn what_is_a_guess_says_so() {
        let pattern = spec_with(|spec| {
            spec["keyFilters"] = json!([{"key": "PK", "matches": "^[0-9]+$"}]);
        });
        assert!(!example(&pattern).certain);
        let computed = spec_with(|spec| {
            spec["connections"]["value"] = json!("keys.SK + 'x'");
        });
        assert!(!example(&computed).certain);
    }
}
