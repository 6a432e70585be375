//! Manifests and items made to bring the process down.

#![expect(clippy::disallowed_methods, reason = "what an evaluation takes, takes real time")]

use std::time::{Duration, Instant};

use crate::model::{AttributeValue, Record};
use crate::rules::compiled_spec::tests::{change, evaluate, n, names, s, spec};
use crate::rules::compiled_spec::{CompiledSpec, Decision};
use crate::rules::error::InvalidSpec;

/// A worker thread has 2 MiB of stack; a quarter of it is left for what calls the notifier.
const STACK: usize = (2 << 20) / 4 * 3;

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
}

/// `count` as large as fits 1,024 characters.
fn fill(head: &str, repeated: &str, middle: &str, closing: &str, tail: &str) -> String {
    let fixed = head.len() + middle.len() + tail.len();
    fill_times(
        (1_024 - fixed) / (repeated.len() + closing.len()),
        head,
        repeated,
        middle,
        closing,
        tail,
    )
}

fn fill_times(
    count: usize,
    head: &str,
    repeated: &str,
    middle: &str,
    closing: &str,
    tail: &str,
) -> String {
    [head, &repeated.repeat(count), middle, &closing.repeat(count), tail].concat()
}

/// Ways in which an expression nests or goes on: head, repeated, middle, closing, tail.
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
fn no_shape_of_1024_characters_overflows_a_workers_stack() {
    for shape in SHAPES {
        let [head, repeated, middle, closing, tail] = shape;
        let whole = fill(head, repeated, middle, closing, tail);
        assert!(whole.chars().count() <= 1_024 && whole.len() > 1_000, "{}", whole.len());
        // As long as can be, cut off in the middle, and every depth about the bound.
        let cut: String = whole.chars().take(600).collect();
        let short = (1..=34).map(|count| fill_times(count, head, repeated, middle, closing, tail));
        let sources: Vec<String> = [whole, cut].into_iter().chain(short).collect();
        on_a_small_stack(move || {
            let mut evaluated = 0;
            for source in &sources {
                let answer = evaluate(source, &change());
                evaluated += usize::from(!matches!(&answer, Err(error) if error.contains("deep")));
            }
            assert!(evaluated > 0, "{shape:?}");
        });
    }
}

#[test]
fn a_thousand_levels_are_refused_in_a_sentence() {
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
        assert!(problem.starts_with("nests too deep; at most 32 levels"), "{problem}");
    }
}

#[test]
fn no_text_makes_the_parser_panic_or_hang() {
    // What tokens there are, put together in every way a seeded generator finds.
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
        let begin = Instant::now();
        for _ in 0..4_000 {
            let source: String =
                (0..1 + random(24)).map(|_| TOKENS[random(TOKENS.len())]).collect();
            if let Err(error) = evaluate(&source, &change()) {
                assert!(!error.contains("cannot be "), "{source:?}: {error}");
                assert!(!error.contains('\n') && error.chars().count() < 400, "{error}");
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(60));
    });
}

fn large() -> Record {
    let mut change = change();
    let list = |count: usize| AttributeValue::L((0..count).map(|i| n(&i.to_string())).collect());
    change.new.insert("s".to_owned(), s(&"a".repeat(400_000)));
    change.new.insert("q".to_owned(), s(&"\"".repeat(400_000)));
    change.new.insert("l".to_owned(), list(1_000));
    change.new.insert("long".to_owned(), list(1_001));
    change.new.insert("longest".to_owned(), list(100_000));
    change
}

#[test]
fn nothing_can_be_multiplied_without_bound() {
    let change = large();
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
        let begin = Instant::now();
        let error = evaluate(source, &change).unwrap_err();
        assert!(error.contains("take too much memory or time"), "{source}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{source}: {:?}", begin.elapsed());
    }
    // And what is only large is not refused.
    for source in [
        "new.s.replace('a', 'b').size()",
        "new.l.filter(x, x in new.l).size()",
        "new.l.map(x, string(x)).join(',').size()",
        "new.longest.size() + new.s.size()",
        "new.s.indexOf(new.s + 'b')",
        "new.s.lastIndexOf('b' + new.s)",
        &format!("{doubling}.map(x, x.size())"),
    ] {
        let answer = evaluate(source, &change);
        assert!(answer.is_ok(), "{source}: {answer:?}");
    }
}

#[test]
fn a_pattern_in_an_expression_is_not_compiled_for_each_element() {
    let change = large();
    let alternating = |one: &str, other: &str| {
        format!("new.l.all(x, !('b'.matches({one}) || 'b'.matches({other})))")
    };
    assert_eq!(evaluate(&alternating("'a1'", "'a2'"), &change).as_deref(), Ok("true"));
    // Those that are put together can be anything, and each is paid for.
    let error = evaluate(&alternating("'a' + '1'", "'a' + '2'"), &change).unwrap_err();
    assert!(error.contains("take too much memory or time"), "{error}");
}

#[test]
fn the_budget_is_one_records() {
    let mut spec = spec();
    let fields = (0..32).map(|i| (i.to_string(), "new.s+new.s+new.s+new.s+new.s+new.s".to_owned()));
    spec.message = Some(fields.collect());
    let notifier = CompiledSpec::new(&spec).unwrap();
    let Decision::Invalid(invalid) = notifier.decide(&names(), &large()) else { panic!() };
    assert!(invalid.problem.contains("take too much memory or time"), "{invalid}");
    let mut small = change();
    small.new.insert("s".to_owned(), s("a"));
    assert!(matches!(notifier.decide(&names(), &small), Decision::Notify(_)));
}

#[test]
fn a_macro_goes_through_a_thousand_elements_and_no_more() {
    let change = large();
    assert_eq!(evaluate("new.l.exists(x, x == 999)", &change).as_deref(), Ok("true"));
    for source in ["new.long.exists(x, x == 1)", "[1].map(x, new.long)[0].map(x, x)"] {
        let error = evaluate(source, &change).unwrap_err();
        assert_eq!(error, "message.x: a macro goes through at most 1000 elements");
    }
    // One that no macro goes through may be there.
    assert_eq!(evaluate("new.long.size()", &change).as_deref(), Ok("1001"));
}

#[test]
fn a_record_that_nests_too_deep_is_invalid() {
    let nested = |levels: usize| {
        let mut value = s("x");
        for _ in 0..levels {
            value = AttributeValue::L(vec![value]);
        }
        let mut change = change();
        change.new.insert("TargetAttribute".to_owned(), value);
        change
    };
    on_a_small_stack(move || {
        assert!(evaluate("new.TargetAttribute", &nested(60)).is_ok());
        let error = evaluate("new.TargetAttribute", &nested(500)).unwrap_err();
        assert_eq!(error, "new: nests deeper than 64 levels");
        let mut plain = spec();
        plain.message = None;
        let verdict = CompiledSpec::new(&plain).unwrap().decide(&names(), &nested(500));
        let Decision::Invalid(invalid) = verdict else { panic!("{verdict:?}") };
        assert_eq!(invalid.field, "message.value");
    });
}

#[test]
fn odd_numbers_and_texts_of_a_record_are_only_values() {
    for text in ["", "-", "1e999999999", "NaN", "inf", "0x10", "1_0", "٣", "1e-400"] {
        let mut change = change();
        change.new.insert("v".to_owned(), n(text));
        for source in ["string(new.v)", "new.v", "new.v == 1", "[new.v > 1]", "double(new.v)"] {
            let _ = evaluate(source, &change);
        }
        assert_eq!(evaluate("string(new.v)", &change), Ok(format!("\"{text}\"")));
    }
}
