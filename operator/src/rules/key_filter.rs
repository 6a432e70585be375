//! Filters on key attributes. Evaluation allocates nothing and cannot fail.

use super::error::InvalidSpec;
use super::pattern::{Pattern, PatternBudget};
use crate::api;
use crate::model::{AttributeValue, Item};

/// A compiled filter on one key attribute. All of its matchers must match.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    key: String,
    equals: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    matches: Option<Pattern>,
}

/// Compiles all filters of a spec, or returns the first problem.
pub(crate) fn compile(
    filters: &[api::KeyFilter],
    budget: &mut PatternBudget,
) -> Result<Vec<KeyFilter>, InvalidSpec> {
    for (index, filter) in filters.iter().enumerate() {
        if filters.iter().take(index).any(|earlier| earlier.key == filter.key) {
            return Err(InvalidSpec::new(
                format!("keyFilters[{}]", filter.key),
                "this key has two entries; put all its matchers into one entry",
            ));
        }
    }
    filters.iter().map(|filter| KeyFilter::new(filter, budget)).collect()
}

impl KeyFilter {
    fn new(filter: &api::KeyFilter, budget: &mut PatternBudget) -> Result<Self, InvalidSpec> {
        let api::KeyFilter { key, equals, prefix, suffix, contains, matches } = filter.clone();
        let literals = [&equals, &prefix, &suffix, &contains];
        if matches.is_none() && literals.iter().all(|matcher| matcher.is_none()) {
            return Err(InvalidSpec::new(
                format!("keyFilters[{key}]"),
                "needs at least one of equals, prefix, suffix, contains, matches",
            ));
        }
        let matches = matches.map(|pattern| Pattern::compile(&pattern, budget)).transpose();
        let matches = matches
            .map_err(|problem| InvalidSpec::new(format!("keyFilters[{key}].matches"), &problem))?;
        Ok(Self { key, equals, prefix, suffix, contains, matches })
    }

    /// Whether all matchers except the pattern match. A number is compared by its text. A key
    /// attribute that is missing or binary never matches.
    pub(crate) fn matches_literals(&self, keys: &Item) -> bool {
        self.text(keys).is_some_and(|text| {
            self.equals.as_ref().is_none_or(|equals| text == equals)
                && self.prefix.as_ref().is_none_or(|prefix| text.starts_with(prefix))
                && self.suffix.as_ref().is_none_or(|suffix| text.ends_with(suffix))
                && self.contains.as_ref().is_none_or(|part| text.contains(part))
        })
    }

    /// Whether the pattern matches, if there is one. A search can take several milliseconds,
    /// because users write the patterns.
    pub(crate) fn matches_pattern(&self, keys: &Item) -> bool {
        let found = |pattern: &Pattern| self.text(keys).is_some_and(|text| pattern.is_match(text));
        self.matches.as_ref().is_none_or(found)
    }

    fn text<'k>(&self, keys: &'k Item) -> Option<&'k str> {
        match keys.get(&self.key)? {
            AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn filter(set: impl FnOnce(&mut api::KeyFilter)) -> api::KeyFilter {
        let mut filter = api::KeyFilter { key: "PK".to_owned(), ..api::KeyFilter::default() };
        set(&mut filter);
        filter
    }

    fn compiled(filter: &api::KeyFilter) -> KeyFilter {
        KeyFilter::new(filter, &mut PatternBudget::new()).unwrap()
    }

    fn is_match(filter: &api::KeyFilter, value: AttributeValue) -> bool {
        let (filter, keys) = (compiled(filter), [("PK".to_owned(), value)].into());
        filter.matches_literals(&keys) && filter.matches_pattern(&keys)
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    #[test]
    fn matches_each_kind_of_matcher() {
        type Set = fn(&mut api::KeyFilter, String);
        let cases: [(&str, Set, &str, bool); 12] = [
            ("equals", |f, m| f.equals = Some(m), "order#1", true),
            ("equals", |f, m| f.equals = Some(m), "order", false),
            ("prefix", |f, m| f.prefix = Some(m), "order#", true),
            ("prefix", |f, m| f.prefix = Some(m), "rder", false),
            ("suffix", |f, m| f.suffix = Some(m), "#1", true),
            ("suffix", |f, m| f.suffix = Some(m), "#", false),
            ("contains", |f, m| f.contains = Some(m), "der", true),
            ("contains", |f, m| f.contains = Some(m), "Der", false),
            ("matches", |f, m| f.matches = Some(m), "^order#[0-9]+$", true),
            ("matches", |f, m| f.matches = Some(m), "r#", true),
            ("matches", |f, m| f.matches = Some(m), "^r#", false),
            ("matches", |f, m| f.matches = Some(m), "(?i)ORDER", true),
        ];
        for (name, set, matcher, expected) in cases {
            let filter = filter(|f| set(f, matcher.to_owned()));
            assert_eq!(is_match(&filter, text("order#1")), expected, "{name} {matcher}");
        }
    }

    #[test]
    fn requires_all_matchers() {
        let both = filter(|f| {
            f.prefix = Some("order#".to_owned());
            f.suffix = Some("#open".to_owned());
        });
        assert!(is_match(&both, text("order#1#open")));
        assert!(!is_match(&both, text("order#1#shut")));
        assert!(!is_match(&both, text("offer#1#open")));
    }

    #[test]
    fn matches_a_number_by_its_text_and_never_a_binary_value() {
        let seven = filter(|f| f.equals = Some("7".to_owned()));
        let any = filter(|f| f.matches = Some(".*".to_owned()));
        assert!(is_match(&seven, AttributeValue::N("7".to_owned())));
        assert!(!is_match(&seven, AttributeValue::N("7.0".to_owned())));
        assert!(!is_match(&any, AttributeValue::B(Bytes::from_static(b"7"))));
        assert!(!compiled(&any).matches_literals(&Item::new()));
    }

    #[test]
    fn reports_the_problem_of_a_filter() {
        let twice = filter(|f| f.equals = Some("7".to_owned()));
        let pattern = |pattern: String| vec![filter(|f| f.matches = Some(pattern))];
        for (filters, field, problem) in [
            (vec![filter(|_| ())], "keyFilters[PK]", "needs at least one of equals, prefix"),
            (vec![twice.clone(), twice], "keyFilters[PK]", "this key has two entries"),
            (pattern("order(".into()), "keyFilters[PK].matches", "is not a pattern in RE2 syntax"),
            (pattern("(?=x)".into()), "keyFilters[PK].matches", "look-around"),
            (
                pattern(r"\pL{900}{900}".into()),
                "keyFilters[PK].matches",
                "is too large when compiled",
            ),
            (pattern("(".repeat(500)), "keyFilters[PK].matches", "is not a pattern"),
            (pattern("x".repeat(513)), "keyFilters[PK].matches", "has more than 512 bytes"),
        ] {
            let error = compile(&filters, &mut PatternBudget::new()).unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.problem.contains(problem), "{error}");
        }
    }
}
