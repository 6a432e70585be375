//! DynamoDB numbers as CEL values that keep every digit: `string(x)` gives the stored text.
//!
//! DynamoDB numbers have up to 38 digits. If an `i64` or an `f64` prints the stored text, the
//! number becomes CEL's `int` or `double`. Any other number becomes a [`Decimal`]. A decimal
//! supports
//! `string()`, `double()`, and comparison with every number on either side. It has no arithmetic,
//! because `double(x)` shows that digits can be lost. In `x in [1, 2]`, cel compares the elements
//! of the literal with `x`, and its `int` does not equal a decimal.

use std::any::Any;
use std::cmp::Ordering;

use cel::ExecutionError;
use cel::common::traits::Comparer;
use cel::common::types::{CelDouble, CelInt, CelUInt, Type};
use cel::common::value::{StaticVal, Val};

/// The type's name in expressions and messages.
static DECIMAL_TYPE: Type = Type::new_unspecified_type("decimal");

/// Converts the text of a DynamoDB number.
pub(crate) fn number_to_cel(text: &str) -> Box<dyn Val> {
    if let Ok(int) = text.parse::<i64>()
        && int.to_string() == text
    {
        return Box::new(CelInt::from(int));
    }
    if let Ok(double) = text.parse::<f64>()
        && double.is_finite()
        && double.to_string() == text
    {
        return Box::new(CelDouble::from(double));
    }
    Box::new(Decimal(text.into()))
}

/// Whether JSON's grammar allows the text as a number.
pub(crate) fn is_json_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = split_exponent(unsigned);
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(is_digits)
        && exponent.is_none_or(|text| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

/// A number that would lose digits as an `int` or a `double`.
#[derive(Clone, Debug)]
pub(crate) struct Decimal(Box<str>);

impl Decimal {
    /// The text that DynamoDB stored.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The nearest double, or NaN if the text is not a number.
    pub(crate) fn to_double(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Compares with a number. Returns `None` for any other value.
    pub(crate) fn numeric_cmp(&self, other: &dyn Val) -> Option<Ordering> {
        let other = if let Some(decimal) = other.downcast_ref::<Decimal>() {
            NormalizedDecimal::parse(&decimal.0)
        } else if let Some(int) = other.downcast_ref::<CelInt>() {
            NormalizedDecimal::parse(&int.to_string())
        } else if let Some(uint) = other.downcast_ref::<CelUInt>() {
            NormalizedDecimal::parse(&uint.to_string())
        } else if let Some(double) = other.downcast_ref::<CelDouble>() {
            NormalizedDecimal::parse(&double.to_string())
        } else {
            None
        };
        Some(NormalizedDecimal::parse(&self.0)?.cmp(&other?))
    }
}

impl Val for Decimal {
    fn get_type(&self) -> &Type {
        &DECIMAL_TYPE
    }

    fn cel_type() -> &'static Type {
        &DECIMAL_TYPE
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let same_text = other.downcast_ref::<Decimal>().is_some_and(|other| self.0 == other.0);
        same_text || self.numeric_cmp(other) == Some(Ordering::Equal)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Decimal {}

impl Comparer for Decimal {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        self.numeric_cmp(other).ok_or_else(|| {
            let types = vec![DECIMAL_TYPE.name().to_owned(), other.get_type().name().to_owned()];
            ExecutionError::no_such_overload("_<_", types)
        })
    }
}

/// `0.<digits> * 10^exponent`, without leading and trailing zeros. Equal numbers have equal fields,
/// however they are written.
#[derive(Debug, PartialEq, Eq)]
struct NormalizedDecimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl NormalizedDecimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = split_exponent(unsigned);
        let exponent = exponent.map_or(Some(0), |text| text.parse::<i32>().ok())?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        if !is_digits(&all) {
            return None;
        }
        let significant = all.trim_start_matches('0');
        let leading_zeros = i64::try_from(all.len() - significant.len()).ok()?;
        let whole_digits = i64::try_from(whole.len()).ok()?;
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent = i64::from(exponent) + whole_digits - leading_zeros;
        Some(Self { negative, digits, exponent })
    }

    /// Returns -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for NormalizedDecimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude =
            || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        self.sign().cmp(&other.sign()).then_with(|| match self.sign() {
            0 => Ordering::Equal,
            1 => magnitude(),
            _ => magnitude().reverse(),
        })
    }
}

impl PartialOrd for NormalizedDecimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn split_exponent(text: &str) -> (&str, Option<&str>) {
    match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_a_number_to_the_simplest_type_that_keeps_its_text() {
        for (text, kind) in [
            ("0", "int"),
            ("-90", "int"),
            ("9223372036854775807", "int"),
            ("9223372036854775808", "decimal"),
            ("0.1", "double"),
            ("-1.5", "double"),
            ("1000000000000000000000", "double"),
            ("0.10", "decimal"),
            ("3.14159265358979323846264338327950288419", "decimal"),
            ("12345678901234567890123456789012345678", "decimal"),
            ("1E+30", "decimal"),
            ("007", "decimal"),
            ("inf", "decimal"),
            ("NaN", "decimal"),
            ("not a number", "decimal"),
        ] {
            assert_eq!(number_to_cel(text).get_type().name(), kind, "{text}");
        }
    }

    #[test]
    fn compares_a_decimal_with_every_number() {
        let big = Decimal("9223372036854775808".into());
        let pi = Decimal("3.14159265358979323846264338327950288419".into());
        let minus = Decimal("-1E+30".into());
        assert_eq!(big.numeric_cmp(&CelInt::from(i64::MAX)), Some(Ordering::Greater));
        assert_eq!(big.numeric_cmp(&CelDouble::from(1e19)), Some(Ordering::Less));
        assert_eq!(pi.numeric_cmp(&CelInt::from(3)), Some(Ordering::Greater));
        assert_eq!(pi.numeric_cmp(&CelDouble::from(3.2)), Some(Ordering::Less));
        assert_eq!(pi.numeric_cmp(&CelDouble::from(f64::NAN)), None);
        assert_eq!(minus.numeric_cmp(&pi), Some(Ordering::Less));
        assert_eq!(minus.numeric_cmp(&Decimal("-1E+31".into())), Some(Ordering::Greater));
        assert_eq!(minus.numeric_cmp(&CelUInt::from(0)), Some(Ordering::Less));
        assert_eq!(Decimal("1E+2".into()).numeric_cmp(&CelInt::from(100)), Some(Ordering::Equal));
        assert_eq!(Decimal("-0.00".into()).numeric_cmp(&CelInt::from(0)), Some(Ordering::Equal));
        assert_eq!(
            Decimal("0.001".into()).numeric_cmp(&Decimal("1e-3".into())),
            Some(Ordering::Equal)
        );
    }

    #[test]
    fn compares_texts_that_are_no_numbers_as_texts() {
        for text in ["", "-", ".", "1e", "1e99999999999", "x", "1.2.3", "--1", "1e+-2"] {
            let value = Decimal(text.into());
            assert!(value.equals(&value), "{text}");
            assert_eq!(value.numeric_cmp(&CelInt::from(0)), None, "{text}");
        }
    }

    #[test]
    fn accepts_only_numbers_of_the_json_grammar() {
        for text in ["0", "-0", "90", "0.10", "1E+30", "1e-7", "-12.5e3"] {
            assert!(is_json_number(text), "{text}");
        }
        for text in ["", "-", "007", "+1", ".5", "5.", "1e", "1e+", "0x1", "inf", "NaN", "1 "] {
            assert!(!is_json_number(text), "{text}");
        }
    }
}
