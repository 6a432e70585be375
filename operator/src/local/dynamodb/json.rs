//! Requests and answers as the API has them on the wire, and refusals worded as DynamoDB words them.

use dynoxide::DynoxideError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An operation's answer, or its refusal, which knows its JSON and its HTTP status.
pub type Answer<T> = Result<T, DynoxideError>;

/// Reads a request, runs it, and writes its answer.
pub fn answer<Q: DeserializeOwned, A: Serialize>(
    body: &str,
    operation: impl FnOnce(Q) -> Answer<A>,
) -> Answer<String> {
    write(&operation(read(body)?)?)
}

/// Reads a request. The engine's own readers mark how DynamoDB words a refusal.
pub fn read<Q: DeserializeOwned>(body: &str) -> Answer<Q> {
    serde_json::from_str(body).map_err(|error| refusal(&error.to_string()))
}

/// Writes an answer.
pub fn write<A: Serialize>(answer: &A) -> Answer<String> {
    serde_json::to_string(answer).map_err(internal)
}

fn refusal(message: &str) -> DynoxideError {
    let text = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    let (mark, text) = match text.split_once(':') {
        Some((mark, rest)) if mark.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
            (mark, rest)
        }
        _ => ("", text),
    };
    let validation = mark.starts_with("VALIDATION")
        || ["missing field", "unknown variant", "invalid type: null", "AttributeValue"]
            .iter()
            .any(|sign| text.contains(sign));
    if validation && !mark.starts_with("SERIALIZATION") {
        return DynoxideError::ValidationException(text.to_owned());
    }
    DynoxideError::SerializationException(text.to_owned())
}

/// The answer to a fault of our own.
pub fn internal(error: impl std::fmt::Display) -> DynoxideError {
    DynoxideError::InternalServerError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_worded_without_the_engines_marks() {
        let cases = [
            (
                "VALIDATION:The parameter is required at line 1 column 2",
                "The parameter is required",
                true,
            ),
            ("VALIDATION_REQUEST:Null: true at line 1 column 2", "Null: true", true),
            ("missing field `Key` at line 1 column 2", "missing field `Key`", true),
            ("expected value at line 1 column 1", "expected value", false),
            ("SERIALIZATION:Wrong AttributeValue", "Wrong AttributeValue", false),
        ];
        for (message, text, validation) in cases {
            let refusal = refusal(message);
            assert_eq!(refusal.to_string(), text);
            assert_eq!(
                refusal.error_type().ends_with("#ValidationException"),
                validation,
                "{text}"
            );
        }
    }
}
