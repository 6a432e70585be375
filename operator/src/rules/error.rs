//! Errors of a spec and of a record. Each one names the field and states the problem in one short
//! line, because conditions and Events show it.

/// The maximum length of a problem, in characters.
const MAX_PROBLEM_CHARS: usize = 300;

/// A spec that cannot be used. The problem says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    /// The field as a user writes it, such as `message.value`.
    pub field: String,
    /// What is wrong with the field, and what to write instead.
    pub problem: String,
}

impl InvalidSpec {
    pub(crate) fn new(field: impl Into<String>, problem: &str) -> Self {
        Self { field: one_line(&field.into()), problem: one_line(problem) }
    }
}

/// A record that an expression of the spec cannot be evaluated on. Never contains a value of the
/// item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidRecord {
    /// The field of the spec that has no usable value.
    pub field: String,
    /// The kind of failure.
    pub problem: String,
}

impl InvalidRecord {
    pub(crate) fn new(field: impl Into<String>, problem: &str) -> Self {
        Self { field: one_line(&field.into()), problem: one_line(problem) }
    }
}

/// Joins a text into one line of at most 300 characters, because parsers return paragraphs.
pub(crate) fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut line = String::new();
    for word in
        text.chars().take(4 * MAX_PROBLEM_CHARS).map(printable).collect::<String>().split(' ')
    {
        if !word.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    if line.chars().count() > MAX_PROBLEM_CHARS {
        line = line.chars().take(MAX_PROBLEM_CHARS - 1).chain(['…']).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_a_problem_to_one_line() {
        let error = InvalidSpec::new("message.value", "first\n | second\t\u{7}  third");
        assert_eq!(error.to_string(), "message.value: first | second third");
        let long = InvalidSpec::new("message", &"é ".repeat(10_000));
        assert_eq!(long.problem.chars().count(), MAX_PROBLEM_CHARS);
        assert!(long.problem.ends_with('…'));
    }
}
