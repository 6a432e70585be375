//! JSON requests, responses and errors in the wire format of DynamoDB.

use dynoxide::DynoxideError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Response of an operation, or an error with its JSON and HTTP status.
pub type DynamoResult<T> = Result<T, DynoxideError>;

/// Parses a request, executes it and serializes the response.
pub fn respond<Q: DeserializeOwned, R: Serialize>(
    body: &str,
    operation: impl FnOnce(Q) -> DynamoResult<R>,
) -> DynamoResult<String> {
    to_json(&operation(parse(body)?)?)
}

/// Parses a request. An error has the type and the text of DynamoDB's.
pub fn parse<Q: DeserializeOwned>(body: &str) -> DynamoResult<Q> {
    serde_json::from_str(body).map_err(|error| parse_error(&error.to_string()))
}

/// Serializes a response.
pub fn to_json<R: Serialize>(response: &R) -> DynamoResult<String> {
    serde_json::to_string(response).map_err(internal_error)
}

/// Converts an error of the deserializer.
///
/// The engine marks the type of an error with a prefix such as `VALIDATION:`.
fn parse_error(message: &str) -> DynoxideError {
    let text = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    let (prefix, text) = match text.split_once(':') {
        Some((prefix, rest)) if prefix.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
            (prefix, rest)
        }
        _ => ("", text),
    };
    let is_validation = prefix.starts_with("VALIDATION")
        || ["missing field", "unknown variant", "invalid type: null", "AttributeValue"]
            .iter()
            .any(|part| text.contains(part));
    if is_validation && !prefix.starts_with("SERIALIZATION") {
        return DynoxideError::ValidationException(text.to_owned());
    }
    DynoxideError::SerializationException(text.to_owned())
}

/// Converts a failure of the emulator itself to an error with status 500.
pub fn internal_error(error: impl std::fmt::Display) -> DynoxideError {
    DynoxideError::InternalServerError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_the_prefixes_of_the_engine_from_errors() {
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
        for (message, text, is_validation) in cases {
            let error = parse_error(message);
            assert_eq!(error.to_string(), text);
            assert_eq!(
                error.error_type().ends_with("#ValidationException"),
                is_validation,
                "{text}"
            );
        }
    }
}
