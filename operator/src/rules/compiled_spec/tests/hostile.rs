//! Tests with specs and items that are written to exhaust the process.

#![expect(clippy::disallowed_methods, reason = "measures the real time of an evaluation")]

use std::time::{Duration, Instant};

use crate::model::{AttributeValue, Record};
use crate::rules::compiled_spec::tests::{evaluate, keys, n, record, s, spec};
use crate::rules::compiled_spec::{CompiledSpec, Decision};
use crate::rules::error::InvalidSpec;

/// Three quarters of the stack of an evaluation thread. The rest is left for the callers.
const STACK_BYTES: usize = (2 << 20) / 4 * 3;

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

/// Repeats as often as 1,024 characters allow.
fn fill_shape(head: &str, repeated: &str, middle: &str, closing: &str, tail: &str) -> String {
    let fixed = head.len() + middle.len() + tail.len();
    repeat_shape(
        (1_024 - fixed) / (repeated.len() + closing.len()),
        head,
        repeated,
        middle,
        closing,
        tail,
    )
}

fn repeat_shape(
    count: usize,
    head: &str,
    repeated: &str,
    middle: &str,
    closing: &str,
    tail: &str,
) -> String {
    [head, &repeated.repeat(count), middle, &closing.repeat(count), tail].concat()
}

/// Forms of nested and long expressions: head, repeated part, middle, repeated closing, tail.
const SHAPES: [[&str; 5]; 40] = [
    ["", "(", "1", ")", ""],
    ["", "[", "1", "]", ""],
    ["", "[[", "1", "]]", ""],
    ["", "{'a':", "1", "}", ""],
    ["", "{1:[", "1", "]}", ""],
    ["", "string(", "1", ")", ""],
    ["", "f(", "1", ")", ""],
    ["", "'a'.contains(", "'a'", ")", ""],
    ["", "!", "true", "", ""],
    ["", "!(", "true", ")", ""],
    ["", "-", "1", "", ""],
    ["", "-(", "1", ")", ""],
    ["", "- ", "keys.n", "", ""],
    ["keys", ".a", "", "", ""],
    ["new", ".?a", "", "", ""],
    ["new", "[0]", "", "", ""],
    ["", "new[", "0", "]", ""],
    ["[0]", "[0]", "", "", ""],
    ["'a'", ".trim()", "", "", ""],
    ["", "true?1:", "1", "", ""],
    ["", "true?", "1", ":1", ""],
    ["", "(", "true", "?true:1)", ""],
    ["", "1+", "1", "", ""],
    ["", "1<", "1", "", ""],
    ["", "1 in ", "[1]", "", ""],
    ["", "1==", "1", "", ""],
    ["", "1*(1+", "1", ")", ""],
    ["", "true||", "true", "", ""],
    ["", "false||", "true", "", ""],
    ["", "true&&", "true", "", ""],
    ["", "a||b&&", "true", "", ""],
    ["[1]", ".map(x,x)", "", "", ""],
    ["[1]", ".filter(x,true)", "", "", ""],
    ["", "[", "1", "].exists(x,true)", ""],
    ["", "[1].map(x,", "1", ")", ""],
    ["", "has(", "new.a", ")", ""],
    ["'", "\\n", "", "", "'"],
    ["'", "\\U0010ffff", "", "", "'"],
    ["[", "1,", "1", "", "]"],
    ["{", "'a':1,", "", "", "}"],
];

#[test]
fn never_overflows_the_stack_within_1024_characters() {
    for shape in SHAPES {
        let [head, repeated, middle, closing, tail] = shape;
        let longest = fill_shape(head, repeated, middle, closing, tail);
        assert!(longest.chars().count() <= 1_024 && longest.len() > 1_000, "{}", longest.len());
        // The longest form, the same cut off in the middle, and every depth around the bound.
        let cut: String = longest.chars().take(600).collect();
        let short =
            (1..=34).map(|count| repeat_shape(count, head, repeated, middle, closing, tail));
        let sources: Vec<String> = [longest, cut].into_iter().chain(short).collect();
        on_a_small_stack(move || {
            let mut evaluated = 0;
            for source in &sources {
                let result = evaluate(source, &record());
                evaluated += usize::from(!matches!(&result, Err(error) if error.contains("deep")));
            }
            assert!(evaluated > 0, "{shape:?}");
        });
    }
}

#[test]
fn rejects_a_thousand_levels() {
    for source in [
        format!("{}1{}", "[".repeat(511), "]".repeat(511)),
        format!("{}1{}", "string(".repeat(100), ")".repeat(100)),
        format!("1{}", "+1".repeat(500)),
        "(".repeat(1_000),
        "[".repeat(1_000),
    ] {
        let mut spec = spec();
        spec.connections.value = Some(source);
        let InvalidSpec { field, problem } = CompiledSpec::new(&spec).unwrap_err();
        assert_eq!(field, "connections.value");
        assert!(problem.starts_with("is nested too deep; write at most 32 levels"), "{problem}");
    }
}

#[test]
fn never_panics_or_hangs_in_the_parser() {
    // A seeded generator combines these tokens.
    const TOKENS: [&str; 48] = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        "?",
        ":",
        "-",
        "!",
        "+",
        "*",
        "/",
        "%",
        "<",
        "==",
        "&&",
        "||",
        "in",
        "'",
        "\"",
        "'''",
        "\\",
        "\\x",
        "r'",
        "b'",
        "`",
        "a",
        "new",
        "keys.a",
        "has(",
        ".map(x,",
        ".exists(y,",
        ".?",
        "[?",
        "1",
        "1u",
        "1e",
        "0x",
        "9223372036854775808",
        "é",
        "\u{10ffff}",
        "\n",
        "//",
        "true",
        "optional.of(",
    ];
    on_a_small_stack(|| {
        let mut seed: u64 = 42;
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let started_at = Instant::now();
        for _ in 0..4_000 {
            let source: String =
                (0..1 + random(24)).map(|_| TOKENS[random(TOKENS.len())]).collect();
            if let Err(error) = evaluate(&source, &record()) {
                assert!(!error.contains("cannot be "), "{source:?}: {error}");
                assert!(!error.contains('\n') && error.chars().count() < 400, "{error}");
            }
        }
        assert!(started_at.elapsed() < Duration::from_secs(60));
    });
}

fn large_record() -> Record {
    let mut record = record();
    let list = |count: usize| AttributeValue::L((0..count).map(|i| n(&i.to_string())).collect());
    record.new.insert("s".to_owned(), s(&"a".repeat(400_000)));
    record.new.insert("q".to_owned(), s(&"\"".repeat(400_000)));
    record.new.insert("l".to_owned(), list(1_000));
    record.new.insert("long".to_owned(), list(1_001));
    record.new.insert("longest".to_owned(), list(100_000));
    record
}

#[test]
fn bounds_every_multiplication_of_values() {
    let record = large_record();
    let doubling = format!("['ab']{}", ".map(x,x+x)".repeat(10));
    let doubling_large = format!("[new.s]{}", ".map(x,x+x)".repeat(14));
    let quoted = format!("{}new.q{}", "strings.quote(".repeat(14), ")".repeat(14));
    let hex = format!("{}new.s{}", "'%x'.format([".repeat(9), "])".repeat(9));
    let reversed = format!("new.l.all(x, new.s{} != '')", ".reverse()".repeat(13));
    let steps = format!("new.l.all(x, {}true)", "1<2&&".repeat(190));
    let lists = format!("[new.l]{}", ".map(x,[x,x,x,x,x,x])".repeat(8));
    for source in [
        "new.s.replace('a', new.s)",
        "new.s.replace('', new.s).size()",
        "new.s.split('').join(new.s)",
        "new.l.map(x, new.s + new.s)",
        "new.l.map(x, new.longest)",
        "new.l.map(x, [new])",
        "new.l.all(x, new.s.split('').size() > 0)",
        "new.l.all(x, new.longest == new.longest)",
        "new.l.all(x, x in new.longest)",
        "new.l.all(x, new.s.indexOf(new.s + 'b') < 0)",
        "new.l.all(x, !new.s.matches('(a*)*b'))",
        "new.l.map(x, string(x)).all(x, !'a'.matches(x))",
        "!new.s.matches('(?:[01a]*a[01a]{90})+x')",
        "!'a'.matches(new.s)",
        "[new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, \
         new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, new.s, \
         new.s, new.s, new.s, new.s, new.s]",
        &quoted,
        &hex,
        &reversed,
        &steps,
        &doubling_large,
        &lists,
    ] {
        let started_at = Instant::now();
        let error = evaluate(source, &record).unwrap_err();
        assert!(error.contains("exceed their memory or time limit"), "{source}: {error}");
        assert!(
            started_at.elapsed() < Duration::from_secs(30),
            "{source}: {:?}",
            started_at.elapsed()
        );
    }
    // Large values alone are accepted.
    for source in [
        "new.s.replace('a', 'b').size()",
        "new.l.filter(x, x in new.l).size()",
        "new.l.map(x, string(x)).join(',').size()",
        "new.longest.size() + new.s.size()",
        "new.s.indexOf(new.s + 'b')",
        "new.s.lastIndexOf('b' + new.s)",
        &format!("{doubling}.map(x, x.size())"),
    ] {
        let result = evaluate(source, &record);
        assert!(result.is_ok(), "{source}: {result:?}");
    }
}

#[test]
fn compiles_a_literal_pattern_once_for_all_elements() {
    let record = large_record();
    let alternating = |one: &str, other: &str| {
        format!("new.l.all(x, !('b'.matches({one}) || 'b'.matches({other})))")
    };
    assert_eq!(evaluate(&alternating("'a1'", "'a2'"), &record).as_deref(), Ok("true"));
    // Each compilation of a computed pattern is charged.
    let error = evaluate(&alternating("'a' + '1'", "'a' + '2'"), &record).unwrap_err();
    assert!(error.contains("exceed their memory or time limit"), "{error}");
}

#[test]
fn shares_one_budget_among_the_expressions_of_a_record() {
    let mut spec = spec();
    let fields = (0..32).map(|i| (i.to_string(), "new.s+new.s+new.s+new.s+new.s+new.s".to_owned()));
    spec.message = Some(fields.collect());
    let rules = CompiledSpec::new(&spec).unwrap();
    let Decision::Invalid(invalid) = rules.decide(&keys(), &large_record()) else { panic!() };
    assert!(invalid.problem.contains("exceed their memory or time limit"), "{invalid}");
    let mut small = record();
    small.new.insert("s".to_owned(), s("a"));
    assert!(matches!(rules.decide(&keys(), &small), Decision::Notify(_)));
}

#[test]
fn limits_a_macro_to_a_thousand_elements() {
    let record = large_record();
    assert_eq!(evaluate("new.l.exists(x, x == 999)", &record).as_deref(), Ok("true"));
    for source in ["new.long.exists(x, x == 1)", "[1].map(x, new.long)[0].map(x, x)"] {
        let error = evaluate(source, &record).unwrap_err();
        assert_eq!(
            error,
            "message.x: a macro visits at most 1000 elements, but its range has more"
        );
    }
    // A longer list is accepted outside of macros.
    assert_eq!(evaluate("new.long.size()", &record).as_deref(), Ok("1001"));
}

#[test]
fn rejects_a_record_that_is_nested_too_deep() {
    let nested = |levels: usize| {
        let mut value = s("x");
        for _ in 0..levels {
            value = AttributeValue::L(vec![value]);
        }
        let mut record = record();
        record.new.insert("TargetAttribute".to_owned(), value);
        record
    };
    on_a_small_stack(move || {
        assert!(evaluate("new.TargetAttribute", &nested(60)).is_ok());
        let error = evaluate("new.TargetAttribute", &nested(500)).unwrap_err();
        assert_eq!(error, "new: is nested deeper than 64 levels");
        let mut default_message = spec();
        default_message.message = None;
        let decision = CompiledSpec::new(&default_message).unwrap().decide(&keys(), &nested(500));
        let Decision::Invalid(invalid) = decision else { panic!("{decision:?}") };
        assert_eq!(invalid.field, "message.value");
    });
}

#[test]
fn accepts_malformed_numbers_of_a_record_as_values() {
    for text in ["", "-", "1e999999999", "NaN", "inf", "0x10", "1_0", "٣", "1e-400"] {
        let mut record = record();
        record.new.insert("v".to_owned(), n(text));
        for source in ["string(new.v)", "new.v", "new.v == 1", "[new.v > 1]", "double(new.v)"] {
            let _ = evaluate(source, &record);
        }
        assert_eq!(evaluate("string(new.v)", &record), Ok(format!("\"{text}\"")));
    }
}
