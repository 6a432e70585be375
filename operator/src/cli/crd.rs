//! `stream-notifier crd`.

use std::io::Write as _;

use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::api::StreamNotifier;
use crate::cli::CommandError;

/// Prints the CustomResourceDefinition as YAML.
pub fn print() -> Result<(), CommandError> {
    let yaml = yaml()?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}

/// The CustomResourceDefinition as YAML, as `crds/streamnotifiers.yaml` has it.
pub fn yaml() -> Result<String, CommandError> {
    let mut definition = serde_json::to_value(StreamNotifier::crd())?;
    join_lines(&mut definition);
    Ok(serde_saphyr::to_string(&definition)?)
}

/// Joins the lines of each description, and keeps its paragraphs: `kubectl explain` wraps each line
/// by itself, and those of the sources are longer than its own.
fn join_lines(definition: &mut Value) {
    match definition {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    // A field of this name is an object.
                    Value::String(text) if name == "description" => *text = joined(text),
                    value => join_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

fn joined(text: &str) -> String {
    let paragraphs: Vec<_> = text.split("\n\n").map(|lines| lines.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn descriptions_keep_paragraphs_and_lose_line_breaks() {
        let mut definition = json!({"properties": {"description": {
            "description": "One\ntwo.\n\nThree\nfour.",
            "enum": ["a\nb"],
            "items": [{"description": "five\nsix"}],
        }}});
        join_lines(&mut definition);
        let expected = json!({"properties": {"description": {
            "description": "One two.\n\nThree four.",
            "enum": ["a\nb"],
            "items": [{"description": "five six"}],
        }}});
        assert_eq!(definition, expected);
    }

    #[test]
    fn the_definition_tells_every_condition() {
        let yaml = yaml().unwrap();
        for condition in ["Ready", "Reconciling", "Stalled", "Degraded", "DataGap"] {
            assert!(yaml.contains(&format!("`{condition}`:")), "{condition}");
        }
    }
}
