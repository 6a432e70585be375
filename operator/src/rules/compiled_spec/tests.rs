//! Tests of complete specs on complete records.

pub mod expressions;
pub mod hostile;

use std::collections::BTreeMap;

use crate::api::{Connections, DataGapPolicy, Delivery, KeyFilter, StartingPosition, WebSocket};
use crate::model::{Item, SequenceNumber, UnixSeconds, UserIdentity, ViewType};
use crate::rules::compiled_spec::*;

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn n(text: &str) -> AttributeValue {
    AttributeValue::N(text.to_owned())
}

pub(crate) fn item<const COUNT: usize>(entries: [(&str, AttributeValue); COUNT]) -> Item {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn contains(key: &str, part: &str) -> KeyFilter {
    let contains = Some(part.to_owned());
    KeyFilter { key: key.to_owned(), contains, ..KeyFilter::default() }
}

/// A spec like `examples/target-attribute.yaml`.
pub(crate) fn spec() -> StreamNotifierSpec {
    let fields = [
        ("pk", "keys.PK.split('#')[1]"),
        ("sk", "keys.SK.split('#')[1]"),
        ("value", "string(new.TargetAttribute)"),
    ];
    StreamNotifierSpec {
        stream_arn: None,
        table_arn: Some("arn:aws:dynamodb:ap-northeast-1:123456789012:table/t".to_owned()),
        starting_position: StartingPosition::Latest,
        starting_timestamp: None,
        events: vec![ChangeKind::Modify],
        key_filters: vec![contains("PK", "target_pk"), contains("SK", "target_sk")],
        attribute: Some("TargetAttribute".to_owned()),
        filter: None,
        connections: Connections {
            table_name: "sample-connections-dev".to_owned(),
            index_name: Some("sk-index".to_owned()),
            partition_key: Some("sk".to_owned()),
            value: Some("keys.SK.split('#')[1]".to_owned()),
            connection_id_attribute: "connection_id".to_owned(),
            region: None,
            ttl_attribute: None,
            cache_seconds: 0,
        },
        web_socket: WebSocket { domain: "example.com".to_owned(), stage: None, region: None },
        delivery: Delivery::default(),
        message: Some(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        on_gap: DataGapPolicy::Continue,
        poll_interval_milliseconds: 250,
        suspend: false,
    }
}

/// A record that [`spec`] matches.
pub(crate) fn record() -> Record {
    let keys = item([("PK", s("target_pk#fuga")), ("SK", s("target_sk#hoge"))]);
    let mut old = keys.clone();
    old.insert("TargetAttribute".to_owned(), n("80"));
    let mut new = keys.clone();
    new.insert("TargetAttribute".to_owned(), n("90"));
    Record {
        event_id: "e1".to_owned(),
        event: EventName::Modify,
        keys,
        old,
        new,
        sequence_number: SequenceNumber::parse("111100000000000000000").unwrap(),
        approximate_creation_time: UnixSeconds(1_733_212_735),
        user_identity: None,
    }
}

pub(crate) fn keys() -> KeySchema {
    KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) }
}

impl CompiledSpec {
    fn decide(&self, keys: &KeySchema, record: &Record) -> Decision {
        if self.matches_prefilter(record) { self.evaluate(keys, record) } else { Decision::Skip }
    }
}

fn decide(spec: &StreamNotifierSpec, record: &Record) -> Decision {
    CompiledSpec::new(spec).unwrap().decide(&keys(), record)
}

fn body(decision: Decision) -> String {
    match decision {
        Decision::Notify(notification) => String::from_utf8(notification.body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn builds_the_message_of_the_example() {
    let Decision::Notify(notification) = decide(&spec(), &record()) else { panic!() };
    assert_eq!(notification.lookup, Some(s("hoge")));
    assert_eq!(notification.body, r#"{"pk":"fuga","sk":"hoge","value":"90"}"#);
}

#[test]
fn skips_records_that_the_example_does_not_match() {
    type Edit = fn(&mut Record);
    let cases: [(&str, Edit); 8] = [
        ("an insert", |r| r.event = EventName::Insert),
        ("a remove", |r| r.event = EventName::Remove),
        ("PK without target_pk", |r| drop(r.keys.insert("PK".to_owned(), s("pk#fuga")))),
        ("SK without target_sk", |r| drop(r.keys.insert("SK".to_owned(), s("sk#hoge")))),
        ("no SK", |r| drop(r.keys.remove("SK"))),
        ("another attribute", |r| r.old = r.new.clone()),
        ("the attribute was removed", |r| drop(r.new.remove("TargetAttribute"))),
        ("no images", |r| (r.old, r.new) = Default::default()),
    ];
    for (name, edit) in cases {
        let mut record = record();
        edit(&mut record);
        assert_eq!(decide(&spec(), &record), Decision::Skip, "{name}");
    }
}

#[test]
fn treats_a_new_attribute_as_changed() {
    let mut record = record();
    record.old.remove("TargetAttribute");
    assert!(matches!(decide(&spec(), &record), Decision::Notify(_)));
    record.event = EventName::Insert;
    record.old = Item::new();
    let mut spec = spec();
    spec.events = vec![ChangeKind::Insert];
    assert!(matches!(decide(&spec, &record), Decision::Notify(_)));
}

#[test]
fn compares_attribute_values_as_dynamodb_stores_them() {
    let set = |members: [&str; 2]| AttributeValue::Ss(members.map(str::to_owned).into());
    for (old, new, is_changed) in [
        (n("1"), n("1"), false),
        (n("1"), n("1.0"), true),
        (n("1"), s("1"), true),
        (set(["a", "b"]), set(["b", "a"]), false),
        (set(["a", "b"]), set(["a", "c"]), true),
    ] {
        let (mut record, mut spec) = (record(), spec());
        spec.message = None;
        record.old.insert("TargetAttribute".to_owned(), old.clone());
        record.new.insert("TargetAttribute".to_owned(), new.clone());
        let is_match = matches!(decide(&spec, &record), Decision::Notify(_));
        assert_eq!(is_match, is_changed, "{old:?} {new:?}");
    }
}

#[test]
fn sends_the_keys_and_the_new_value_by_default() {
    let mut spec = spec();
    spec.message = None;
    let expected = r#"{"pk":"target_pk#fuga","sk":"target_sk#hoge","value":90}"#;
    assert_eq!(body(decide(&spec, &record())), expected);

    let value = AttributeValue::M(item([
        ("bin", AttributeValue::B(Bytes::from_static(b"\x00\xff"))),
        ("bool", AttributeValue::Bool(true)),
        ("list", AttributeValue::L(vec![AttributeValue::Null, n("1E+30"), n("007")])),
        ("numbers", AttributeValue::Ns(["2".to_owned(), "10".to_owned()].into())),
        ("texts", AttributeValue::Ss(["\"".to_owned(), "é\n\u{7}".to_owned()].into())),
    ]));
    let mut record = record();
    record.new.insert("TargetAttribute".to_owned(), value);
    let expected = concat!(
        r#"{"pk":"target_pk#fuga","sk":"target_sk#hoge","value":{"bin":"AP8=","bool":true,"#,
        r#""list":[null,1E+30,"007"],"numbers":[10,2],"texts":["\"","é\n\u0007"]}}"#,
    );
    assert_eq!(body(decide(&spec, &record)), expected);

    spec.attribute = None;
    let pk_only = KeySchema { partition: "PK".to_owned(), sort: None };
    let decision = CompiledSpec::new(&spec).unwrap().decide(&pk_only, &record);
    assert_eq!(body(decision), r#"{"pk":"target_pk#fuga"}"#);
}

#[test]
fn evaluates_the_filter_after_all_other_conditions() {
    let decide_with = |filter: &str, record: &Record| {
        let mut spec = spec();
        spec.filter = Some(filter.to_owned());
        decide(&spec, record)
    };
    let is_raised = "new.TargetAttribute > old.TargetAttribute";
    assert!(matches!(decide_with(is_raised, &record()), Decision::Notify(_)));
    let mut lowered = record();
    lowered.new.insert("TargetAttribute".to_owned(), n("70"));
    assert_eq!(decide_with(is_raised, &lowered), Decision::Skip);
    // The message of a skipped record is not evaluated, nor is the filter after an earlier skip.
    lowered.keys.insert("SK".to_owned(), s("target_sk without a separator"));
    assert_eq!(decide_with(is_raised, &lowered), Decision::Skip);
    lowered.event = EventName::Insert;
    assert_eq!(decide_with("old.absent", &lowered), Decision::Skip);

    for (filter, problem) in [
        ("new.TargetAttribute", "gives int, but must give true or false"),
        ("'true'", "gives string, but must give true or false"),
        ("null", "gives null_type, but must give true or false"),
        ("new.absent == 1", "no such key: absent"),
    ] {
        let Decision::Invalid(invalid) = decide_with(filter, &record()) else { panic!("{filter}") };
        assert_eq!(invalid.to_string(), format!("filter: {problem}"));
    }
}

#[test]
fn searches_patterns_of_key_filters_with_the_expressions() {
    let mut spec = spec();
    spec.key_filters[0].matches = Some("^target_pk#[0-9]+$".to_owned());
    let rules = CompiledSpec::new(&spec).unwrap();
    assert!(rules.matches_prefilter(&record()), "a search is too slow for the prefilter");
    assert_eq!(rules.evaluate(&keys(), &record()), Decision::Skip);
    let mut numbered = record();
    numbered.keys.insert("PK".to_owned(), s("target_pk#7"));
    assert!(matches!(rules.evaluate(&keys(), &numbered), Decision::Notify(_)));
    numbered.keys.insert("PK".to_owned(), s("pk#7"));
    assert!(!rules.matches_prefilter(&numbered));
}

#[test]
fn rejects_a_record_without_its_key() {
    let mut spec = spec();
    (spec.message, spec.connections.value) = (None, Some("eventId".to_owned()));
    let keys = KeySchema { partition: "ID".to_owned(), sort: None };
    let decision = CompiledSpec::new(&spec).unwrap().decide(&keys, &record());
    let Decision::Invalid(invalid) = decision else { panic!("{decision:?}") };
    assert_eq!(invalid.to_string(), "message.pk: the record does not have this attribute");
}

/// The value of the expression in a message, or the problem of the spec or record.
pub(crate) fn evaluate(expression: &str, record: &Record) -> Result<String, String> {
    let mut spec = spec();
    (spec.attribute, spec.key_filters) = (None, Vec::new());
    spec.events = vec![ChangeKind::Insert, ChangeKind::Modify, ChangeKind::Remove];
    spec.message = Some([("x".to_owned(), expression.to_owned())].into());
    spec.connections.value = Some("eventId".to_owned());
    match CompiledSpec::new(&spec).map_err(|error| error.to_string())?.decide(&keys(), record) {
        Decision::Notify(notification) => {
            let body = String::from_utf8(notification.body.to_vec()).unwrap();
            let value = body.strip_prefix(r#"{"x":"#).and_then(|rest| rest.strip_suffix('}'));
            Ok(value.unwrap().to_owned())
        }
        Decision::Invalid(invalid) => Err(invalid.to_string()),
        Decision::Skip => panic!("skipped"),
    }
}

#[test]
fn reports_the_problem_of_a_spec() {
    type Edit = fn(&mut StreamNotifierSpec);
    let cases: [(Edit, &str); 12] = [
        (|s| s.events.clear(), "events: is empty; name at least one of Insert, Modify, Remove"),
        (|s| s.events = vec![ChangeKind::Remove], "attribute: a removed item has no new value"),
        (|s| s.key_filters[0].contains = None, "keyFilters[PK]: needs at least one of equals"),
        (|s| s.key_filters[1].key = "PK".into(), "keyFilters[PK]: this key has two entries"),
        (|s| s.key_filters[1].matches = Some("(".into()), "keyFilters[SK].matches: is not a pat"),
        (|s| s.message = Some(BTreeMap::new()), "message: has no field; add one"),
        (
            |s| s.message = Some((0..33).map(|i| (i.to_string(), "1".to_owned())).collect()),
            "message: has more than 32 fields",
        ),
        (
            |s| s.connections.value = Some("keys.".into()),
            "connections.value: is not a CEL expression",
        ),
        (
            |s| s.connections.value = Some(format!("{}1{}", "[".repeat(500), "]".repeat(500))),
            "connections.value: is nested too deep; write at most 32 levels",
        ),
        (
            |s| {
                let fields =
                    (0..4).map(|n| (n.to_string(), format!("'a'.matches('{}')", "b".repeat(490))));
                s.message = Some(fields.collect());
            },
            "message.3: the pattern of matches exceeds the 2048 bytes for all patterns of a spec",
        ),
        (|s| s.filter = Some("new.a >".to_owned()), "filter: is not a CEL expression: column"),
        (|s| drop(s.message.as_mut().unwrap().insert("é".into(), " ".into())), "message.é: is emp"),
    ];
    for (edit, expected) in cases {
        let mut spec = spec();
        edit(&mut spec);
        let error = CompiledSpec::new(&spec).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(error.chars().count() < 400 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn requires_a_view_type_with_the_used_images() {
    type Edit = fn(&mut StreamNotifierSpec);
    let unchanged: Edit = |_| ();
    let insert_only: Edit = |s| s.events = vec![ChangeKind::Insert];
    let no_attribute: Edit = |s| s.attribute = None;
    let old_value: Edit = |s| {
        s.attribute = None;
        s.message = None;
        s.connections.value = Some("[old].map(o, o.sk)[0]".to_owned());
    };
    let filtered: Edit = |s| {
        (s.attribute, s.message) = (None, None);
        s.filter = Some("old.TargetAttribute > 1".to_owned());
    };
    let keys_only: Edit = |s| (s.attribute, s.message) = (None, None);
    let shadowed: Edit = |s| {
        (s.attribute, s.message) = (None, None);
        s.connections.value = Some("[keys].map(new, new.SK)[0]".to_owned());
    };
    const BOTH: ViewType = ViewType::NewAndOldImages;
    const NEW: ViewType = ViewType::NewImage;
    const OLD: ViewType = ViewType::OldImage;
    const KEYS: ViewType = ViewType::KeysOnly;
    const WITH_NEW: &str = "NEW_IMAGE or NEW_AND_OLD_IMAGES";
    const WITH_OLD: &str = "OLD_IMAGE or NEW_AND_OLD_IMAGES";
    let compares = "attribute: compares the old value with the new value";
    for (edit, view, error) in [
        (unchanged, BOTH, None),
        (unchanged, NEW, Some((compares, "NEW_AND_OLD_IMAGES"))),
        (unchanged, KEYS, Some((compares, "NEW_AND_OLD_IMAGES"))),
        (insert_only, NEW, None),
        (insert_only, OLD, Some(("attribute: uses the new value", WITH_NEW))),
        (filtered, BOTH, None),
        (filtered, KEYS, Some(("filter: uses `old`", WITH_OLD))),
        (no_attribute, NEW, None),
        (no_attribute, KEYS, Some(("message.value: uses `new`", WITH_NEW))),
        (old_value, OLD, None),
        (old_value, KEYS, Some(("connections.value: uses `old`", WITH_OLD))),
        (keys_only, KEYS, None),
        (shadowed, KEYS, None),
    ] {
        let mut spec = spec();
        edit(&mut spec);
        let missing = CompiledSpec::new(&spec).unwrap().required_images().missing_from(view);
        let expected = error.map(|(why, wanted)| {
            format!(
                "{why}, but the stream's view type is {}; enable a stream with the view type \
                 {wanted}, or remove this field",
                view.as_str()
            )
        });
        assert_eq!(missing.map(|missing| missing.to_string()), expected);
    }
}

#[test]
fn provides_every_variable() {
    let mut record = record();
    record.user_identity = Some(UserIdentity {
        identity_type: "Service".to_owned(),
        principal_id: "dynamodb.amazonaws.com".to_owned(),
    });
    record.event = EventName::Remove;
    record.new = Item::new();
    let expression = "[eventName, keys.PK, old.TargetAttribute, new, eventId, sequenceNumber, \
                      approximateCreationDateTime, userIdentity]";
    let expected = concat!(
        r#"["REMOVE","target_pk#fuga",80,{},"e1","111100000000000000000",1733212735,"#,
        r#"{"principalId":"dynamodb.amazonaws.com","type":"Service"}]"#,
    );
    assert_eq!(evaluate(expression, &record).unwrap(), expected);
    record.user_identity = None;
    assert_eq!(evaluate("userIdentity", &record).unwrap(), "{}");
}
