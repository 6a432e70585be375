//! Lines printed at the start: the addresses, and commands that show a message arrive.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::example::Example;
use crate::api::{ChangeKind, StreamNotifierSpec};
use crate::local::plan::Plan;

/// URLs of the local servers.
pub struct ServerUrls<'a> {
    /// Example: `http://127.0.0.1:8080`.
    pub gateway: &'a str,
    /// Example: `http://127.0.0.1:8000`.
    pub dynamodb: &'a str,
}

/// Returns the lines. The last one begins with `ready`. `exposed_address` is the address on which the
/// servers listen, if other machines can reach it.
pub fn hint_lines(
    spec: &StreamNotifierSpec,
    plan: &Plan,
    example: &Example,
    urls: &ServerUrls<'_>,
    exposed_address: Option<IpAddr>,
) -> Vec<String> {
    let update = update_command(plan, example, urls);
    let arrives = if spec.filter.is_some() {
        "the message arrives if `filter` is true:"
    } else {
        "the message arrives:"
    };
    let created = if spec.events.contains(&ChangeKind::Insert) {
        format!("# Create an item; {arrives}")
    } else {
        "# Create an item (an INSERT, which does not match `events` of this manifest):".to_owned()
    };
    let mut lines = vec![
        format!("# Change an item on the page and watch the message arrive: {}/", urls.gateway),
        "# Or receive messages in a terminal (install wscat with npm install -g wscat):".to_owned(),
        format!("wscat -c {}", quote_url(&socket_url(spec, example, urls.gateway))),
        created,
        update(80),
        format!("# Change it; {arrives}"),
        update(90),
    ];
    // With `attribute`, a deletion does not match, because there is no new value.
    if spec.events.contains(&ChangeKind::Remove) && spec.attribute.is_none() {
        lines.extend([
            format!("# Delete it; {arrives}"),
            command("delete-item", plan, example, urls),
        ]);
    }
    if !example.is_certain {
        lines.push(
            "# These values are a guess. Check that they pass keyFilters, and that \
             connections.value returns the value in the wscat command."
                .to_owned(),
        );
    }
    if spec.delivery.dead_letter_queue_arn.is_some() {
        let line = "# Local mode has no SQS queue: delivery.deadLetterQueueArn is ignored.";
        lines.push(line.to_owned());
    }
    if let Some(address) = exposed_address {
        lines.push(format!(
            "# The servers listen on {address}: other machines that can reach this address can read and \
             change the tables."
        ));
    }
    lines.push(format!("ready: {}/ and DynamoDB at {}", urls.gateway, urls.dynamodb));
    lines
}

fn socket_url(spec: &StreamNotifierSpec, example: &Example, origin: &str) -> String {
    let stage = spec.web_socket.stage.as_deref().unwrap_or_default();
    let url = format!("{}/{stage}", origin.replacen("http", "ws", 1));
    let Some(parameter) = &example.parameter else {
        return url;
    };
    format!("{url}?{}={}", percent_encode(parameter), percent_encode(&example.lookup_value))
}

fn update_command<'a>(
    plan: &'a Plan,
    example: &'a Example,
    urls: &'a ServerUrls<'_>,
) -> impl Fn(u8) -> String + use<'a> {
    move |number| {
        let (mut names, mut values) = (Map::new(), Map::new());
        names.insert("#a".to_owned(), json!(example.attribute));
        values.insert(":a".to_owned(), json!({ "N": number.to_string() }));
        let mut expression = "SET #a = :a".to_owned();
        if let Some((name, value)) = &example.lookup_attribute {
            names.insert("#b".to_owned(), json!(name));
            values.insert(":b".to_owned(), json!({ "S": value }));
            expression.push_str(", #b = :b");
        }
        format!(
            "{} --update-expression {} --expression-attribute-names {} \
             --expression-attribute-values {}",
            command("update-item", plan, example, urls),
            quote(&expression),
            quote(&Value::Object(names).to_string()),
            quote(&Value::Object(values).to_string()),
        )
    }
}

/// Returns an `aws dynamodb` command for the example's item.
fn command(name: &str, plan: &Plan, example: &Example, urls: &ServerUrls<'_>) -> String {
    format!(
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb {name} --region {} \
         --endpoint-url {} --table-name {} --key {}",
        quote(&plan.location.region),
        quote(urls.dynamodb),
        quote(&plan.items.name),
        quote(&example.key_json().to_string()),
    )
}

/// Quotes a word for a POSIX shell.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes a URL with double quotes, which every shell understands, unless it has special characters.
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
    use crate::local::tests::fixture::{example_manifest, spec_with};

    fn lines_of(spec: &StreamNotifierSpec) -> Vec<String> {
        let plan = Plan::from_spec(spec, &[]).unwrap();
        let example = Example::from_spec(spec, &plan);
        let urls =
            ServerUrls { gateway: "http://127.0.0.1:8080", dynamodb: "http://127.0.0.1:8000" };
        hint_lines(spec, &plan, &example, &urls, None)
    }

    #[test]
    fn prints_commands_for_the_example() {
        let lines = lines_of(&example_manifest().spec);
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
    fn mentions_inserts_only_if_they_do_not_match() {
        let spec = spec_with(|spec| spec["events"] = json!(["Insert", "Modify"]));
        assert!(!lines_of(&spec).iter().any(|line| line.contains("INSERT")));
    }

    #[test]
    fn prints_a_delete_command_only_if_removals_match() {
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
        for without_removals in [example_manifest().spec, spec_with(removals)] {
            assert!(!lines_of(&without_removals).iter().any(is_delete));
        }
    }

    #[test]
    fn promises_a_message_only_without_a_filter() {
        let is_conditional = |spec: &StreamNotifierSpec| {
            lines_of(spec).iter().any(|line| line.contains("arrives if `filter` is true:"))
        };
        let with = spec_with(|spec| spec["filter"] = json!("new.price < old.price"));
        assert_eq!(
            (is_conditional(&with), is_conditional(&example_manifest().spec)),
            (true, false)
        );
    }

    #[test]
    fn mentions_an_ignored_dead_letter_queue_once() {
        let count_lines = |spec: &StreamNotifierSpec| {
            lines_of(spec).iter().filter(|line| line.contains("deadLetterQueueArn")).count()
        };
        let arn = "arn:aws:sqs:eu-west-1:123456789012:lost";
        let with = spec_with(|spec| spec["delivery"] = json!({"deadLetterQueueArn": arn}));
        assert_eq!((count_lines(&with), count_lines(&example_manifest().spec)), (1, 0));
    }

    #[test]
    fn quotes_words_for_the_shell() {
        let words =
            ["it's", "a b", "$HOME", "`id`", "\"x\"", "", "plain-1.2", "#", "a\\'b", "日本"];
        let script = words.map(|word| format!("printf '%s\\n' {}", quote(word))).join(";");
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(out.stdout).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), words);
    }

    #[test]
    fn percent_encodes_query_parameters() {
        let spec = spec_with(|spec| {
            spec["keyFilters"][1] = json!({"key": "SK", "equals": "a&b#c d"});
            spec["connections"]["value"] = json!("keys.SK");
        });
        let line = r#"wscat -c "ws://127.0.0.1:8080/api?SK=a%26b%23c%20d""#;
        assert!(lines_of(&spec).contains(&line.to_owned()));
    }
}
