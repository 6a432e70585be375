//! Sequence numbers of records. They compare as integers, never as text.

use std::cmp::Ordering;
use std::fmt;

/// Sequence number of a record: 21 to 40 digits, stored as the stream wrote them.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html>
#[derive(Clone, Debug)]
pub struct SequenceNumber(Box<str>);

impl SequenceNumber {
    /// Parses the number of a record or a checkpoint. Returns `None` unless it consists of digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Self(text.into()))
    }

    /// The number as the stream wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits after leading zeros.
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
    fn compares_numbers_of_different_lengths_as_integers() {
        assert!(number("1000000000000000000000") > number("999999999999999999999"));
    }

    #[test]
    fn ignores_leading_zeros() {
        assert_eq!(number("000000000000000000007"), number("7"));
        assert!(number("000000000000000000010") > number("9"));
    }

    #[test]
    fn rejects_text_that_is_not_all_digits() {
        for text in ["", "-1", "1.5", "LATEST", " 1"] {
            assert!(SequenceNumber::parse(text).is_none(), "{text:?}");
        }
    }
}
