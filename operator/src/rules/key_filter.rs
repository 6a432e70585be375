//! A key filter holds or does not hold: nothing is allocated, nothing can fail.

use super::error::InvalidSpec;
use super::pattern::{Pattern, PatternBudget};
use crate::api;
use crate::model::{AttributeValue, Item};

/// What one key attribute must look like.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    key: String,
    equals: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    matches: Option<Pattern>,
}

/// All filters of a spec, or the first thing wrong with them.
pub(crate) fn compile(
    filters: &[api::KeyFilter],
    left: &mut PatternBudget,
) -> Result<Vec<KeyFilter>, InvalidSpec> {
    for (at, filter) in filters.iter().enumerate() {
        if filters.iter().take(at).any(|earlier| earlier.key == filter.key) {
            return Err(InvalidSpec::new(
                format!("keyFilters[{}]", filter.key),
                "this key has two entries; put all its matchers into one entry",
            ));
        }
    }
    filters.iter().map(|filter| KeyFilter::new(filter, left)).collect()
}

impl KeyFilter {
    fn new(filter: &api::KeyFilter, left: &mut PatternBudget) -> Result<Self, InvalidSpec> {
        let api::KeyFilter { key, equals, prefix, suffix, contains, matches } = filter.clone();
        let plain = [&equals, &prefix, &suffix, &contains];
        if matches.is_none() && plain.iter().all(|matcher| matcher.is_none()) {
            return Err(InvalidSpec::new(
                format!("keyFilters[{key}]"),
                "needs at least one of equals, prefix, suffix, contains, matches",
            ));
        }
        let matches = matches.map(|pattern| Pattern::compile(&pattern, left)).transpose();
        let matches = matches
            .map_err(|problem| InvalidSpec::new(format!("keyFilters[{key}].matches"), &problem))?;
        Ok(Self { key, equals, prefix, suffix, contains, matches })
    }

    /// Whether all its matchers hold, but for the pattern. A key attribute that is not there, or is
    /// binary, matches nothing; a number is compared by its text.
    pub(crate) fn holds(&self, keys: &Item) -> bool {
        self.text(keys).is_some_and(|text| self.holds_plainly(text))
    }

    /// Whether the pattern is found, if there is one. That may take some milliseconds: it has been
    /// made by another team.
    pub(crate) fn matches(&self, keys: &Item) -> bool {
        let found = |pattern: &Pattern| self.text(keys).is_some_and(|text| pattern.is_match(text));
        self.matches.as_ref().is_none_or(found)
    }

    fn text<'k>(&self, keys: &'k Item) -> Option<&'k str> {
        match keys.get(&self.key)? {
            AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
            _ => None,
        }
    }

    fn holds_plainly(&self, text: &str) -> bool {
        self.equals.as_ref().is_none_or(|equals| text == equals)
            && self.prefix.as_ref().is_none_or(|prefix| text.starts_with(prefix))
            && self.suffix.as_ref().is_none_or(|suffix| text.ends_with(suffix))
            && self.contains.as_ref().is_none_or(|part| text.contains(part))
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

    fn holds(filter: api::KeyFilter, value: AttributeValue) -> bool {
        let (filter, keys) = (
            KeyFilter::new(&filter, &mut PatternBudget::new()).unwrap(),
            [("PK".to_owned(), value)].into(),
        );
        filter.holds(&keys) && filter.matches(&keys)
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    #[test]
    fn each_matcher_holds_or_does_not() {
        type Set = fn(&mut api::KeyFilter, String);
        let table: [(&str, Set, &str, bool); 12] = [
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
        for (name, set, matcher, expected) in table {
            let filter = filter(|f| set(f, matcher.to_owned()));
            assert_eq!(holds(filter, text("order#1")), expected, "{name} {matcher}");
        }
    }

    #[test]
    fn all_matchers_must_hold() {
        let both = filter(|f| {
            f.prefix = Some("order#".to_owned());
            f.suffix = Some("#open".to_owned());
        });
        assert!(holds(both.clone(), text("order#1#open")));
        assert!(!holds(both.clone(), text("order#1#shut")));
        assert!(!holds(both, text("offer#1#open")));
    }

    #[test]
    fn a_number_counts_by_its_text_and_binary_never_matches() {
        let seven = filter(|f| f.equals = Some("7".to_owned()));
        let any = filter(|f| f.matches = Some(".*".to_owned()));
        assert!(holds(seven.clone(), AttributeValue::N("7".to_owned())));
        assert!(!holds(seven, AttributeValue::N("7.0".to_owned())));
        assert!(!holds(any.clone(), AttributeValue::B(Bytes::from_static(b"7"))));
        assert!(!KeyFilter::new(&any, &mut PatternBudget::new()).unwrap().holds(&Item::new()));
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said() {
        let twice = filter(|f| f.equals = Some("7".to_owned()));
        let pattern = |pattern: String| vec![filter(|f| f.matches = Some(pattern))];
        for (filters, field, problem) in [
            (vec![filter(|_| ())], "keyFilters[PK]", "needs at least one of equals, prefix"),
            (vec![twice.clone(), twice], "keyFilters[PK]", "this key has two entries"),
            (pattern("order(".into()), "keyFilters[PK].matches", "is not a pattern in RE2 syntax"),
            (pattern("(?=x)".into()), "keyFilters[PK].matches", "look-around"),
            (pattern(r"\pL{900}{900}".into()), "keyFilters[PK].matches", "grows too large"),
            (pattern("(".repeat(500)), "keyFilters[PK].matches", "is not a pattern"),
            (pattern("x".repeat(513)), "keyFilters[PK].matches", "longer than 512 bytes"),
        ] {
            let error = compile(&filters, &mut PatternBudget::new()).unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.problem.contains(problem), "{error}");
        }
    }
}
