//! `stream-notifier crd`: prints the CustomResourceDefinition.

use std::io::Write as _;

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::error::CommandError;
use crate::api::StreamNotifier;

/// Prints the CustomResourceDefinition to standard output.
pub fn print() -> Result<(), CommandError> {
    let yaml = yaml()?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}

/// Returns the CustomResourceDefinition as YAML: the content of `crds/streamnotifiers.yaml`.
fn yaml() -> Result<String, CommandError> {
    let mut definition = serde_json::to_value(StreamNotifier::crd())?;
    join_lines(&mut definition);
    Ok(serde_saphyr::to_string(&definition)?)
}

/// Joins the lines of each description and keeps its paragraphs.
///
/// `kubectl explain` wraps each line separately, so the line breaks of the sources would remain visible.
fn join_lines(definition: &mut Value) {
    match definition {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    // A field that is called `description` is an object, not a string.
                    Value::String(text) if name == "description" => {
                        *text = join_paragraph_lines(text)
                    }
                    value => join_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

fn join_paragraph_lines(text: &str) -> String {
    let paragraphs: Vec<_> = text.split("\n\n").map(|lines| lines.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::CONDITION_TYPES;

    #[test]
    fn joins_lines_and_keeps_paragraphs() {
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
    fn documents_every_condition_type() {
        let yaml = yaml().unwrap();
        for type_ in CONDITION_TYPES {
            assert!(yaml.contains(&format!("`{type_}`:")), "{type_} is not documented");
        }
    }
}
