//! Sequence numbers compare as the big integers they are, never as text.

use std::cmp::Ordering;
use std::fmt;

/// A record's sequence number: digits, at least 21 of them, kept as the stream wrote them.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html>
#[derive(Clone, Debug)]
pub struct SequenceNumber(Box<str>);

impl SequenceNumber {
    /// Takes a number as a stream or a checkpoint has it; `None` unless it is all digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Self(text.into()))
    }

    /// The number as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn significant(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, other) = (self.significant(), other.significant());
        this.len().cmp(&other.len()).then_with(|| this.cmp(other))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SequenceNumber {}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SequenceNumber;

    fn number(text: &str) -> SequenceNumber {
        SequenceNumber::parse(text).unwrap()
    }

    #[test]
    fn a_longer_number_is_greater_though_its_text_sorts_first() {
        assert!(number("1000000000000000000000") > number("999999999999999999999"));
    }

    #[test]
    fn leading_zeros_do_not_count() {
        assert_eq!(number("000000000000000000007"), number("7"));
        assert!(number("000000000000000000010") > number("9"));
    }

    #[test]
    fn only_digits_are_a_number() {
        for text in ["", "-1", "1.5", "LATEST", " 1"] {
            assert!(SequenceNumber::parse(text).is_none(), "{text:?}");
        }
    }
}
