//! Reads the manifest of local mode as strictly as an API server validates it.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::StreamNotifier;

/// Manifest that runs if the user names none.
const EXAMPLE: &str = include_str!("../../../examples/target-attribute.yaml");

/// Reason for which a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a StreamNotifier: {problem}", path.display())]
    Invalid { path: PathBuf, problem: String },
}

/// Reads the manifest in `file`, or the built-in example.
pub fn read_manifest(file: Option<&Path>) -> Result<StreamNotifier, ManifestError> {
    let invalid = |path: &Path| {
        let path = path.to_owned();
        move |problem| ManifestError::Invalid { path, problem }
    };
    let Some(path) = file else {
        return parse(EXAMPLE).map_err(invalid(Path::new("the built-in example")));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(invalid(path))
}

/// Parses a manifest. It rejects unknown fields, which a typing error would otherwise hide.
fn parse(text: &str) -> Result<StreamNotifier, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let manifest = match <[Value; 1]>::try_from(documents) {
        Ok([manifest]) => manifest,
        Err(documents) if documents.is_empty() => return Err("it is empty".to_owned()),
        Err(_) => return Err("it has several YAML documents; keep one StreamNotifier".to_owned()),
    };
    for (field, expected) in
        [("apiVersion", "streamnotifier.dev/v1alpha1"), ("kind", "StreamNotifier")]
    {
        if manifest[field] != expected {
            return Err(format!("{field} must be {expected}"));
        }
    }
    let notifier: StreamNotifier =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let parsed = serde_json::to_value(&notifier).map_err(|error| error.to_string())?;
    match find_unknown_field(&manifest["spec"], &parsed["spec"], "spec") {
        Some(field) => Err(format!("unknown field {field}")),
        None => Ok(notifier),
    }
}

/// Finds the first field of the manifest that parsing dropped, and returns its path.
fn find_unknown_field(manifest: &Value, parsed: &Value, path: &str) -> Option<String> {
    match (manifest, parsed) {
        (Value::Object(manifest), Value::Object(parsed)) => {
            manifest.iter().find_map(|(name, value)| match parsed.get(name) {
                Some(parsed) => find_unknown_field(value, parsed, &format!("{path}.{name}")),
                // Serialization omits empty fields, so these are known.
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => None,
                None => Some(format!("{path}.{name}")),
            })
        }
        (Value::Array(manifest), Value::Array(parsed)) => {
            let mut pairs = manifest.iter().zip(parsed).enumerate();
            pairs.find_map(|(index, (manifest, parsed))| {
                find_unknown_field(manifest, parsed, &format!("{path}[{index}]"))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_unknown_fields_and_other_kinds() {
        assert!(parse(EXAMPLE).is_ok());
        for (from, to, expected) in [
            ("keyFilters:", "keyFilter:", "unknown field spec.keyFilter"),
            ("{key: PK, contains", "{key: PK, contain", "spec.keyFilters[0].contain"),
            ("kind: StreamNotifier", "kind: StreamNotifer", "kind must be StreamNotifier"),
            ("v1alpha1", "v1", "apiVersion must be streamnotifier.dev/v1alpha1"),
        ] {
            let problem = parse(&EXAMPLE.replace(from, to)).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn requires_exactly_one_document() {
        assert!(parse(&format!("---\n{EXAMPLE}")).is_ok());
        for (text, expected) in [
            (format!("{EXAMPLE}---\n{EXAMPLE}"), "several YAML documents"),
            (String::new(), "it is empty"),
            ("# A comment.\n".to_owned(), "it is empty"),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
