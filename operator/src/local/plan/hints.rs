//! What is printed at the start: where things are, and lines to paste that show a change arrive.

use serde_json::{Map, Value, json};

use super::example::Example;
use crate::api::{ChangeKind, StreamNotifierSpec};
use crate::local::plan::Plan;

/// Where the servers are.
pub struct Places<'a> {
    /// `http://127.0.0.1:8080`.
    pub origin: &'a str,
    /// `http://127.0.0.1:8000`.
    pub dynamodb: &'a str,
}

/// The lines; the last one begins with `ready`.
pub fn lines(
    spec: &StreamNotifierSpec,
    plan: &Plan,
    example: &Example,
    places: &Places<'_>,
) -> Vec<String> {
    let item = update_item(plan, example, places);
    let arrives = if spec.filter.is_some() {
        "the message arrives if `filter` is true of it:"
    } else {
        "the message arrives:"
    };
    let created = if spec.events.contains(&ChangeKind::Insert) {
        "# Create an item that somebody is told of:"
    } else {
        "# Create an item (an INSERT, which this manifest does not tell anybody):"
    };
    let mut lines = vec![
        format!("# Change an item and watch the message arrive: {}/", places.origin),
        "# Or watch in a terminal (npm install -g wscat):".to_owned(),
        format!("wscat -c {}", quote_url(&socket_url(spec, example, places.origin))),
        created.to_owned(),
        item(80),
        format!("# Change it; {arrives}"),
        item(90),
    ];
    // With `attribute` only a new value counts.
    if spec.events.contains(&ChangeKind::Remove) && spec.attribute.is_none() {
        lines.extend([
            format!("# Delete it; {arrives}"),
            command("delete-item", plan, example, places),
        ]);
    }
    if !example.certain {
        lines.push(
            "# These values are a guess: see that they pass keyFilters and give the value that \
             connections.value looks up."
                .to_owned(),
        );
    }
    if spec.delivery.dead_letter_queue_arn.is_some() {
        let line =
            "# There is no queue here: dead letters (delivery.deadLetterQueueArn) are not sent.";
        lines.push(line.to_owned());
    }
    lines.push(format!("ready: {}/ and DynamoDB at {}", places.origin, places.dynamodb));
    lines
}

fn socket_url(spec: &StreamNotifierSpec, example: &Example, origin: &str) -> String {
    let stage = spec.web_socket.stage.as_deref().unwrap_or_default();
    let url = format!("{}/{stage}", origin.replacen("http", "ws", 1));
    let Some(parameter) = &example.parameter else {
        return url;
    };
    format!("{url}?{}={}", percent_encode(parameter), percent_encode(&example.lookup))
}

fn update_item<'a>(
    plan: &'a Plan,
    example: &'a Example,
    places: &'a Places<'_>,
) -> impl Fn(u8) -> String + use<'a> {
    move |number| {
        let (mut names, mut values) = (Map::new(), Map::new());
        names.insert("#a".to_owned(), json!(example.attribute));
        values.insert(":a".to_owned(), json!({ "N": number.to_string() }));
        let mut expression = "SET #a = :a".to_owned();
        if let Some((name, value)) = &example.also {
            names.insert("#b".to_owned(), json!(name));
            values.insert(":b".to_owned(), json!({ "S": value }));
            expression.push_str(", #b = :b");
        }
        format!(
            "{} --update-expression {} --expression-attribute-names {} \
             --expression-attribute-values {}",
            command("update-item", plan, example, places),
            quote(&expression),
            quote(&Value::Object(names).to_string()),
            quote(&Value::Object(values).to_string()),
        )
    }
}

/// A command about the example's item, as far as all of them are the same.
fn command(name: &str, plan: &Plan, example: &Example, places: &Places<'_>) -> String {
    format!(
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb {name} --region {} \
         --endpoint-url {} --table-name {} --key {}",
        quote(&plan.home.region),
        quote(places.dynamodb),
        quote(&plan.items.name),
        quote(&example.key_json().to_string()),
    )
}

/// A word as a POSIX shell reads it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// In double quotes where nothing in it is special there (they are understood by every shell).
fn quote_url(url: &str) -> String {
    if url.contains(['$', '`', '\\', '"', '!']) { quote(url) } else { format!("\"{url}\"") }
}

fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::{origin, spec_with};

    fn lines_of(spec: &StreamNotifierSpec) -> Vec<String> {
        let plan = Plan::of(spec, &[]).unwrap();
        let example = Example::of(spec, &plan);
        let places = Places { origin: "http://127.0.0.1:8080", dynamodb: "http://127.0.0.1:8000" };
        lines(spec, &plan, &example, &places)
    }

    #[test]
    fn the_origins_manifest_gives_lines_to_paste() {
        let lines = lines_of(&origin().spec);
        assert!(lines.contains(&r#"wscat -c "ws://127.0.0.1:8080/api?SK=hoge""#.to_owned()));
        let update = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb update-item \
            --region ap-northeast-1 --endpoint-url http://127.0.0.1:8000 \
            --table-name sample-table-dev \
            --key '{\"PK\":{\"S\":\"target_pk#fuga\"},\"SK\":{\"S\":\"target_sk#hoge\"}}' \
            --update-expression 'SET #a = :a' \
            --expression-attribute-names '{\"#a\":\"TargetAttribute\"}' \
            --expression-attribute-values '{\":a\":{\"N\":\"90\"}}'";
        assert!(lines.contains(&update.to_owned()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("INSERT")));
        let last = lines.last().unwrap();
        assert_eq!(last, "ready: http://127.0.0.1:8080/ and DynamoDB at http://127.0.0.1:8000");
    }

    #[test]
    fn a_manifest_that_tells_inserts_says_so() {
        let spec = spec_with(|spec| spec["events"] = json!(["Insert", "Modify"]));
        assert!(!lines_of(&spec).iter().any(|line| line.contains("INSERT")));
    }

    #[test]
    fn a_manifest_that_tells_removals_gives_a_line_for_one() {
        let removals = |spec: &mut Value| spec["events"] = json!(["Modify", "Remove"]);
        let lines = lines_of(&spec_with(|spec| {
            removals(spec);
            spec["attribute"] = json!(null);
        }));
        let delete = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb delete-item \
            --region ap-northeast-1 --endpoint-url http://127.0.0.1:8000 \
            --table-name sample-table-dev \
            --key '{\"PK\":{\"S\":\"target_pk#fuga\"},\"SK\":{\"S\":\"target_sk#hoge\"}}'";
        assert!(lines.contains(&delete.to_owned()), "{lines:#?}");
        let is_delete = |line: &String| line.contains("delete-item");
        for told_none in [origin().spec, spec_with(removals)] {
            assert!(!lines_of(&told_none).iter().any(is_delete));
        }
    }

    #[test]
    fn a_message_is_not_promised_where_a_filter_decides() {
        let says = |spec: &StreamNotifierSpec| {
            lines_of(spec).iter().any(|line| line.contains("arrives if `filter` is true"))
        };
        let with = spec_with(|spec| spec["filter"] = json!("new.price < old.price"));
        assert_eq!((says(&with), says(&origin().spec)), (true, false));
    }

    #[test]
    fn a_manifest_with_a_queue_is_told_that_nothing_is_sent_to_it() {
        let says = |spec: &StreamNotifierSpec| {
            lines_of(spec).iter().filter(|line| line.contains("deadLetterQueueArn")).count()
        };
        let arn = "arn:aws:sqs:eu-west-1:123456789012:lost";
        let with = spec_with(|spec| spec["delivery"] = json!({"deadLetterQueueArn": arn}));
        assert_eq!((says(&with), says(&origin().spec)), (1, 0));
    }

    #[test]
    fn words_survive_the_shell() {
        let words =
            ["it's", "a b", "$HOME", "`id`", "\"x\"", "", "plain-1.2", "#", "a\\'b", "日本"];
        let script = words.map(|word| format!("printf '%s\\n' {}", quote(word))).join(";");
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(out.stdout).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), words);
    }

    #[test]
    fn queries_are_encoded() {
        let spec = spec_with(|spec| {
            spec["keyFilters"][1] = json!({"key": "SK", "equals": "a&b#c d"});
            spec["connections"]["value"] = json!("keys.SK");
        });
        let line = r#"wscat -c "ws://127.0.0.1:8080/api?SK=a%26b%23c%20d""#;
        assert!(lines_of(&spec).contains(&line.to_owned()));
    }
}
