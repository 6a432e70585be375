//! Example of a change that matches the manifest, for the page and the printed hints.
//!
//! It has key values that pass the filters, the attribute that changes, and the query parameter of a
//! client that receives the message. All of it is derived from the text of the manifest. If the text
//! is not enough, as with a `matches` filter or a computed expression, `is_certain` is `false`.

use regex::Regex;
use serde_json::{Value, json};

use super::expression_text::{SplitExpr, key_names, members, sole_member, split_exprs};
use crate::api::{KeyFilter, StreamNotifierSpec};
use crate::local::plan::Plan;

/// Values for parts of a key that the manifest does not constrain: partition key, sort key.
const EXAMPLE_VALUES: [&str; 2] = ["fuga", "hoge"];

/// Example of a change, and of a client that receives its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Name and value of each key attribute, partition key first. All values are strings.
    pub key: Vec<(String, String)>,
    /// Attribute that changes from the number 80 to the number 90.
    pub attribute: String,
    /// Name and value of the item's attribute that `connections.value` reads, if any.
    pub lookup_attribute: Option<(String, String)>,
    /// Query parameter with which a client connects. `None` if each message goes to every client.
    /// Example: `SK`.
    pub parameter: Option<String>,
    /// Value of the query parameter. Example: `hoge`.
    pub lookup_value: String,
    /// Whether key filters and lookup certainly match the example.
    pub is_certain: bool,
}

impl Example {
    /// Derives the example from a spec and the plan of its tables.
    pub fn from_spec(spec: &StreamNotifierSpec, plan: &Plan) -> Self {
        let splits = all_splits(spec);
        let mut is_certain = true;
        let key: Vec<(String, String)> = plan
            .items
            .key_attributes()
            .into_iter()
            .zip(EXAMPLE_VALUES)
            .map(|(name, default)| {
                let filter = spec.key_filters.iter().find(|filter| filter.key == name);
                let value = key_value(name, default, filter, &splits);
                is_certain &= filter.is_none_or(|filter| is_match(filter, &value));
                (name.to_owned(), value)
            })
            .collect();
        let (lookup_value, lookup_attribute) = evaluate_lookup(spec, &key);
        Self {
            attribute: changed_attribute(spec),
            parameter: query_parameter(spec),
            is_certain: is_certain && (lookup_value.is_some() || spec.connections.value.is_none()),
            lookup_value: lookup_value.unwrap_or_else(|| EXAMPLE_VALUES[1].to_owned()),
            key,
            lookup_attribute,
        }
    }

    /// Returns the key in DynamoDB JSON.
    pub fn key_json(&self) -> Value {
        self.key.iter().map(|(name, value)| (name.clone(), json!({ "S": value }))).collect()
    }
}

fn all_splits(spec: &StreamNotifierSpec) -> Vec<SplitExpr> {
    let message = spec.message.iter().flat_map(|message| message.values());
    message.chain(&spec.connections.value).flat_map(|expression| split_exprs(expression)).collect()
}

/// Builds a value that passes the filter and has all parts that expressions take from it.
///
/// Example: `target_pk#fuga` for `contains: target_pk` and `split('#')[1]`.
fn key_value(
    name: &str,
    default: &str,
    filter: Option<&KeyFilter>,
    splits: &[SplitExpr],
) -> String {
    if let Some(whole) = filter.and_then(|filter| filter.equals.clone()) {
        return whole;
    }
    let matcher = |pick: fn(&KeyFilter) -> &Option<String>| {
        filter.and_then(|filter| pick(filter).clone()).unwrap_or_default()
    };
    let (prefix, suffix) = (matcher(|filter| &filter.prefix), matcher(|filter| &filter.suffix));
    let mut value = prefix;
    let contains = matcher(|filter| &filter.contains);
    if !value.contains(&contains) {
        value.push_str(&contains);
    }
    // Adds parts until the value has all that the expressions take, each of them not empty.
    for split in splits.iter().filter(|split| split.key == name && !split.separator.is_empty()) {
        while value.split(&split.separator).count() <= split.index {
            if value.is_empty() || value.ends_with(&split.separator) {
                value.push_str(name);
            }
            value.push_str(&split.separator);
        }
        if value.ends_with(&split.separator) {
            value.push_str(default);
        }
    }
    if value.is_empty() || filter.is_some_and(|filter| filter.prefix.as_ref() == Some(&value)) {
        value.push_str(default);
    }
    if !value.ends_with(&suffix) {
        value.push_str(&suffix);
    }
    value
}

fn is_match(filter: &KeyFilter, value: &str) -> bool {
    let is_met = |expected: &Option<String>, test: fn(&str, &str) -> bool| {
        expected.as_ref().is_none_or(|expected| test(value, expected))
    };
    is_met(&filter.equals, |value, expected| value == expected)
        && is_met(&filter.prefix, |value, expected| value.starts_with(expected))
        && is_met(&filter.suffix, |value, expected| value.ends_with(expected))
        && is_met(&filter.contains, |value, expected| value.contains(expected))
        && is_met(&filter.matches, |value, expected| {
            Regex::new(expected).is_ok_and(|pattern| pattern.is_match(value))
        })
}

/// Returns the result of `connections.value` for the example's key, and the attribute that it reads.
///
/// The result is `None` if it cannot be derived from the expression's text.
fn evaluate_lookup(
    spec: &StreamNotifierSpec,
    key: &[(String, String)],
) -> (Option<String>, Option<(String, String)>) {
    let Some(expression) = spec.connections.value.as_deref().map(str::trim) else {
        return (None, None);
    };
    let value_of = |name: &str| key.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    if let Some(attribute) = sole_member(expression, "new") {
        let value = EXAMPLE_VALUES[1].to_owned();
        let read =
            (spec.attribute.as_ref() != Some(&attribute)).then(|| (attribute, value.clone()));
        return (read.is_some().then_some(value), read);
    }
    if let Some(name) = sole_member(expression, "keys") {
        return (value_of(&name).cloned(), None);
    }
    let split = split_exprs(expression).into_iter().next();
    let part = split.filter(|_| expression.starts_with("keys") && expression.ends_with(']'));
    let part = part.and_then(|split| {
        value_of(&split.key)?.split(&split.separator).nth(split.index).map(str::to_owned)
    });
    (part, None)
}

fn changed_attribute(spec: &StreamNotifierSpec) -> String {
    let lookup = spec.connections.value.as_ref().and_then(|value| sole_member(value, "new"));
    let first = spec
        .message
        .iter()
        .flat_map(|message| message.values())
        .flat_map(|expression| members(expression, "new"))
        .map(|(name, _)| name)
        .find(|name| Some(name) != lookup.as_ref());
    spec.attribute.clone().or(first).unwrap_or_else(|| "value".to_owned())
}

/// Returns `partitionKey` in the case of the key attribute that the lookup reads, such as `SK` for `sk`.
fn query_parameter(spec: &StreamNotifierSpec) -> Option<String> {
    let name = spec.connections.partition_key.as_ref()?;
    let names = spec.connections.value.as_deref().map(key_names);
    let same_name = names
        .into_iter()
        .flatten()
        .find(|key| key.eq_ignore_ascii_case(name) && key.chars().all(|c| c != ' '));
    same_name.or_else(|| Some(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::{example_manifest, spec_with};

    fn example(spec: &StreamNotifierSpec) -> Example {
        Example::from_spec(spec, &Plan::from_spec(spec, &[]).unwrap())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn derives_the_example_of_the_example_manifest() {
        assert_eq!(
            example(&example_manifest().spec),
            Example {
                key: vec![pair("PK", "target_pk#fuga"), pair("SK", "target_sk#hoge")],
                attribute: "TargetAttribute".to_owned(),
                lookup_attribute: None,
                parameter: Some("SK".to_owned()),
                lookup_value: "hoge".to_owned(),
                is_certain: true,
            }
        );
    }

    #[test]
    fn sets_the_attribute_that_the_lookup_reads() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] = json!([{"key": "orderId", "prefix": "order-"}]);
            spec["message"] = json!({"id": "keys.orderId"});
            spec["connections"]["partitionKey"] = json!("room");
            spec["connections"]["value"] = json!("new.room");
        });
        let example = example(&spec);
        assert_eq!(example.key, [pair("orderId", "order-fuga")]);
        assert_eq!(example.lookup_attribute, Some(pair("room", "hoge")));
        assert_eq!((example.parameter.as_deref(), example.is_certain), (Some("room"), true));
    }

    #[test]
    fn adds_all_parts_that_expressions_take() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] =
                json!([{"key": "PK", "suffix": "!"}, {"key": "SK", "equals": "x"}]);
            spec["message"] = json!({"a": "keys.PK.split('|')[2]"});
            spec["connections"]["value"] = json!("keys.PK");
        });
        let example = example(&spec);
        assert_eq!(example.key, [pair("PK", "PK|PK|fuga!"), pair("SK", "x")]);
        assert_eq!(example.lookup_value, "PK|PK|fuga!");
    }

    #[test]
    fn has_no_parameter_without_a_lookup() {
        let spec = spec_with(|spec| {
            let connections = spec["connections"].as_object_mut().unwrap();
            connections.remove("partitionKey");
            connections.remove("value");
        });
        let example = example(&spec);
        assert_eq!((example.parameter, example.is_certain), (None, true));
    }

    #[test]
    fn is_uncertain_with_patterns_and_computed_values() {
        let pattern = spec_with(|spec| {
            spec["keyFilters"] = json!([{"key": "PK", "matches": "^[0-9]+$"}]);
        });
        assert!(!example(&pattern).is_certain);
        let computed = spec_with(|spec| {
            spec["connections"]["value"] = json!("keys.SK + 'x'");
        });
        assert!(!example(&computed).is_certain);
    }
}
