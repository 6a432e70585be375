//! Tests of the values and errors of expressions.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::model::{AttributeValue, Record};
use crate::rules::compiled_spec::tests::{evaluate, item, keys, n, record, s, spec};
use crate::rules::compiled_spec::{CompiledSpec, Decision};

fn record_with(value: AttributeValue) -> Record {
    let mut record = record();
    record.new.insert("v".to_owned(), value);
    record
}

#[test]
fn writes_values_as_json() {
    let mut record = record();
    record.new = item([
        ("bin", AttributeValue::B(Bytes::from_static(b"hi"))),
        ("d", n("0.10")),
        ("f", n("2.5")),
        ("l", AttributeValue::L(vec![n("1"), s("b"), AttributeValue::Null])),
        ("m", AttributeValue::M(item([("z", n("1")), ("a", s("ü"))]))),
        ("n", n("90")),
        ("t", s("a#b")),
        ("x-y", AttributeValue::Bool(true)),
        ("set", AttributeValue::Ns(BTreeSet::from(["2".to_owned(), "1".to_owned()]))),
    ]);
    for (expression, expected) in [
        ("new.bin", r#""aGk=""#),
        ("new.d", "0.10"),
        ("new.f", "2.5"),
        ("new.f * 2.0", "5"),
        ("1e21 * 10.0", "10000000000000000000000"),
        ("new.l", r#"[1,"b",null]"#),
        ("new.m", r#"{"a":"ü","z":1}"#),
        ("new.m.map(k, k)", r#"["a","z"]"#),
        ("{'b': 1, 'a': {'d': 2, 'c': 3}}", r#"{"a":{"c":3,"d":2},"b":1}"#),
        ("{3: 'c', 1: 'a', 2: 'b'}.map(k, k)", "[1,2,3]"),
        ("new.n + 1", "91"),
        ("new.l + [2] + new.set", r#"[1,"b",null,2,1,2]"#),
        ("'a' + new.t + 'b'", r#""aa#bb""#),
        ("b'a' + b'b'", r#""YWI=""#),
        ("uint(new.n)", "90"),
        ("new['x-y'] ? 'yes' : 'no'", r#""yes""#),
        ("new.set", "[1,2]"),
        ("new.t.split('#')", r#"["a","b"]"#),
        ("has(new.t) && !has(new.u)", "true"),
        ("new.?u.orValue('none')", r#""none""#),
        ("optional.of(new.t).value()", r#""a#b""#),
        ("new.l.filter(x, x == 'b').map(x, x + '!')", r#"["b!"]"#),
        ("new.l.exists(x, x == 1) && new.l.all(x, x != 2)", "true"),
        ("new.l.exists_one(x, x == 1)", "true"),
        ("'b' in new.l", "true"),
        ("type(new.d) == decimal && type(new.f) == double", "true"),
        ("strings.quote(new.t)", r#""\"a#b\"""#),
        ("'%s has %d'.format([new.t, new.n])", r#""a#b has 90""#),
    ] {
        assert_eq!(evaluate(expression, &record).as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn keeps_the_text_of_a_number() {
    for text in [
        "0",
        "-1",
        "90",
        "1.5",
        "0.1",
        "0.10",
        "1e3",
        "1E+30",
        "9223372036854775808",
        "12345678901234567890123456789012345678",
        "0.1000000000000000055511151231257827",
        "-0.000000000000000000000000000000000001",
        "1000000000000000000000",
        "100.0",
    ] {
        let record = record_with(n(text));
        assert_eq!(evaluate("string(new.v)", &record), Ok(format!("\"{text}\"")), "{text}");
        assert_eq!(evaluate("new.v", &record), Ok(text.to_owned()), "{text}");
        assert_eq!(evaluate("double(new.v) == double(string(new.v))", &record), Ok("true".into()));
    }
}

#[test]
fn compares_a_decimal_on_either_side() {
    let record = record_with(n("9223372036854775808"));
    for expression in [
        "new.v > 1",
        "1 < new.v",
        "new.v >= 1.5",
        "1.5 <= new.v",
        "new.v != 1",
        "1 != new.v",
        "new.v == new.v",
        "new.v == 9223372036854775808u",
        "9223372036854775808u == new.v",
        "!(new.v < 1)",
        "!(1 > new.v)",
        "new.v != 'x'",
        "'x' != new.v",
        "new.v <= new.v",
    ] {
        assert_eq!(evaluate(expression, &record).as_deref(), Ok("true"), "{expression}");
    }
}

#[test]
fn evaluates_string_functions_as_the_library_does() {
    let record = record();
    for (expression, expected) in [
        ("'a-b-c'.replace('-', '+')", r#""a+b+c""#),
        ("'a-b-c'.replace('-', '+', 1)", r#""a+b-c""#),
        ("'a-b-c'.replace('-', '', -1)", r#""abc""#),
        ("'ab'.replace('', '_')", r#""_a_b_""#),
        ("['a', 'b'].join('-')", r#""a-b""#),
        ("['a', 'b'].join()", r#""ab""#),
        ("[].join('-')", r#""""#),
        ("'a,b,c'.split(',')", r#"["a","b","c"]"#),
        ("'a,b,c'.split(',', 2)", r#"["a","b,c"]"#),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'a,b,c'.split(',', -1)", r#"["a","b","c"]"#),
        ("'aéc'.split('')", r#"["a","é","c"]"#),
        ("'aéc'.split('', 2)", r#"["a","éc"]"#),
        ("''.split('')", "[]"),
        ("''.split(',')", r#"[""]"#),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.indexOf('jello')", "-1"),
        ("'hello mellow'.indexOf('', 2)", "2"),
        ("'abc'.indexOf('', 20)", "3"),
        ("'ta©o©αT'.indexOf('©', 3)", "4"),
        ("'ta©o©αT'.indexOf('©α', 5)", "-1"),
        ("''.indexOf('a')", "-1"),
        ("'ta©o©αT'.lastIndexOf('©')", "4"),
        ("'ta©o©αT'.lastIndexOf('©', 3)", "2"),
        ("'bananananana'.lastIndexOf('nana', 7)", "6"),
        ("'hello mellow'.lastIndexOf('')", "12"),
        ("''.lastIndexOf('@@')", "-1"),
        ("'abc'.matches('^a.c$') && matches('abc', 'b')", "true"),
        ("['a1', 'b', 'c3'].filter(x, x.matches('[0-9]'))", r#"["a1","c3"]"#),
    ] {
        assert_eq!(evaluate(expression, &record).as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn reports_evaluation_errors_without_values() {
    let mut record = record_with(n("0.10"));
    record.new.insert("secret".to_owned(), s("hush"));
    for (expression, problem) in [
        ("keys.PK.split('/')[1]", "index out of bounds"),
        ("new.absent", "no such key: absent"),
        ("keys[new.secret]", "no such key"),
        ("[] + new", "+ does not accept list and map"),
        ("keys['hush'] == new.secret", "no such key: hush"),
        ("new.secret + 1", "+ does not accept string and int"),
        ("new.secret < 1", "< does not accept string and int"),
        ("new.v + 1", "+ does not accept decimal and int"),
        ("1 + new.v", "+ does not accept int and decimal"),
        ("new.v * 2", "mul does not accept null or decimal and int"),
        ("int(new.secret)", "int() does not accept this value"),
        ("new.secret.size(1)", "size does not accept string and int"),
        ("new.secret.substring(9)", "substring() does not accept this value"),
        ("new.secret.indexOf('a', 9)", "the index argument of indexOf() is out of range"),
        ("new.secret.matches('(' + '')", "the pattern of matches() is invalid"),
        ("new.secret.matches(0)", "matches does not accept string and int"),
        ("new.secret.map(x, x)", "a macro requires a list or a map, but its range is a string"),
        ("[1].join('')", "join() requires strings, but the list has a int"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "a number does not fit into 64 bits"),
        ("{'a': 1, 'a': 2}", "a map has a duplicate key"),
        ("1.0 / 0.0", "gives a double that is not finite, which JSON cannot represent"),
        ("{1: 2}", "gives a map with a key that is not a string"),
        (
            "[type(1)]",
            "gives type, which JSON cannot represent; use string(), double() or, for an \
            optional, orValue()",
        ),
        ("new.?secret", "gives optional_type, which JSON cannot represent"),
    ] {
        let error = evaluate(expression, &record).unwrap_err();
        assert!(error.starts_with(&format!("message.x: {problem}")), "{expression}: {error}");
        assert!(expression.contains("hush") || !error.contains("hush"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn rejects_expressions_that_cannot_work() {
    for (expression, problem) in [
        ("", "is empty; write a CEL expression"),
        ("keys.PK.", "is not a CEL expression: column 9: "),
        ("keys.PK split", "is not a CEL expression: column "),
        ("'abc", "is not a CEL expression: column "),
        ("old.a\n.b +", "is not a CEL expression: column "),
        ("key.PK", "unknown variable `key`; use one of eventName, keys, old, new"),
        ("@result", "is not a CEL expression"),
        ("keys.PK.splitt('#')", "unknown function `splitt` with 1 argument(s)"),
        ("new.l.map(x)", "unknown function `map` with 1 argument(s)"),
        ("keys.PK.matches('(')", "the pattern of matches is not a pattern in RE2 syntax"),
        ("matches(keys.PK, '(?=x)')", "the pattern of matches is not a pattern in RE2 syntax"),
        ("keys.PK.matches(r'\\pL{9999}')", "the pattern of matches is too large when compiled"),
        ("timestamp('x')", "unknown function `timestamp`"),
        ("Point{x: 1}", "unknown message type `Point`"),
        ("new.l.map(x, new.m.exists(y, y == x))", "has a macro (all, exists, exists_one, map"),
        ("new.l.map(x, x.map(y, y)[0])", "has a macro"),
        ("[1].map(x, 1) + [2].filter(x, [x].all(y, true))", "has a macro"),
    ] {
        let error = evaluate(expression, &record()).unwrap_err();
        assert!(error.starts_with(&format!("message.x: {problem}")), "{expression}: {error}");
    }
    let long = format!("'{}'", "é".repeat(1_022));
    assert!(evaluate(&long, &record()).is_ok());
    let error = evaluate(&format!("{long} "), &record()).unwrap_err();
    assert!(error.contains("has more than 1024 characters"), "{error}");
}

#[test]
fn accepts_only_lookup_values_that_dynamodb_accepts_as_keys() {
    let record = record();
    let no_key = "but a key must be a string, number or binary";
    for (expression, expected) in [
        ("'hoge'", Ok(s("hoge"))),
        ("90", Ok(n("90"))),
        ("90u", Ok(n("90"))),
        ("1.5", Ok(n("1.5"))),
        ("0.0", Ok(n("0"))),
        ("b'hi'", Ok(AttributeValue::B(Bytes::from_static(b"hi")))),
        ("''", Err("gives an empty value, but a key must not be empty".to_owned())),
        ("b''", Err("gives an empty value, but a key must not be empty".to_owned())),
        ("'xx'.replace('x', 'x'.replace('x', '%s'))", Ok(s("%s%s"))),
        ("1.0 / 0.0", Err("gives a number that DynamoDB cannot store".to_owned())),
        ("1e126", Err("gives a number that DynamoDB cannot store".to_owned())),
        ("true", Err(format!("gives bool, {no_key}"))),
        ("null", Err(format!("gives null_type, {no_key}"))),
        ("[1]", Err(format!("gives list, {no_key}"))),
        ("keys", Err(format!("gives map, {no_key}"))),
        ("keys.?PK", Err(format!("gives optional_type, {no_key}"))),
    ] {
        let mut spec = spec();
        spec.connections.value = Some(expression.to_owned());
        let result = match CompiledSpec::new(&spec).unwrap().decide(&keys(), &record) {
            Decision::Notify(notification) => Ok(notification.lookup.unwrap()),
            Decision::Invalid(invalid) => {
                assert_eq!(invalid.field, "connections.value");
                Err(invalid.problem)
            }
            Decision::Skip => panic!("skipped"),
        };
        assert_eq!(result, expected, "{expression}");
    }
    let mut long = spec();
    long.connections.value = Some("new.long".to_owned());
    let mut record = record.clone();
    for (length, fits) in [(2_048, true), (2_049, false)] {
        record.new.insert("long".to_owned(), s(&"x".repeat(length)));
        let decision = CompiledSpec::new(&long).unwrap().decide(&keys(), &record);
        assert_eq!(matches!(decision, Decision::Notify(_)), fits, "{decision:?}");
    }
    let mut decimal = spec();
    decimal.connections.value = Some("new.d".to_owned());
    for (text, fits) in [("0.10", true), ("9223372036854775808", true), ("not a number", false)] {
        record.new.insert("d".to_owned(), n(text));
        let decision = CompiledSpec::new(&decimal).unwrap().decide(&keys(), &record);
        assert_eq!(matches!(decision, Decision::Notify(_)), fits, "{decision:?}");
    }
}
