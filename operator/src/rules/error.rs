//! What is wrong with a spec, or with one record, in a sentence that is short and on one line.

/// The longest problem that is told, in characters.
const MAX_PROBLEM_CHARS: usize = 300;

/// Why a spec cannot be used: which field, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    /// The field as a user writes it, such as `message.value`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl InvalidSpec {
    pub(crate) fn new(field: impl Into<String>, problem: &str) -> Self {
        Self { field: one_line(&field.into()), problem: one_line(problem) }
    }
}

/// Why no message can be made of one record. Never holds a value of the item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidRecord {
    /// The field of the spec that cannot be worked out.
    pub field: String,
    /// What is wrong, by kind.
    pub problem: String,
}

impl InvalidRecord {
    pub(crate) fn new(field: impl Into<String>, problem: &str) -> Self {
        Self { field: one_line(&field.into()), problem: one_line(problem) }
    }
}

/// Parsers answer in paragraphs and draw arrows; a condition's message is one bounded line.
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
    fn a_problem_is_one_bounded_line() {
        let error = InvalidSpec::new("message.value", "first\n | second\t\u{7}  third");
        assert_eq!(error.to_string(), "message.value: first | second third");
        let long = InvalidSpec::new("message", &"é ".repeat(10_000));
        assert_eq!(long.problem.chars().count(), MAX_PROBLEM_CHARS);
        assert!(long.problem.ends_with('…'));
    }
}
