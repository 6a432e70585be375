//! Finds attributes and `split` calls in the text of a CEL expression, without evaluating it.
//!
//! The result is used for table names and examples only, so a wrong guess affects no data.

/// Returns the key attributes that an expression names, as `keys.X`, `keys['X']` or `keys["X"]`, in
/// order of appearance.
pub fn key_names(expression: &str) -> Vec<String> {
    members(expression, "keys").into_iter().map(|(name, _)| name).collect()
}

/// Part of a key that an expression takes. Example: `keys.SK.split('#')[1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitExpr {
    /// Name of the key attribute.
    pub key: String,
    pub separator: String,
    /// Index of the part, from 0.
    pub index: usize,
}

/// Returns every part of a key that an expression takes.
pub fn split_exprs(expression: &str) -> Vec<SplitExpr> {
    members(expression, "keys")
        .into_iter()
        .filter_map(|(key, rest)| {
            let (separator, rest) = split_literal(rest.strip_prefix(".split(")?)?;
            let (index, _) = rest.strip_prefix(")[")?.split_once(']')?;
            Some(SplitExpr {
                key,
                separator: separator.to_owned(),
                index: index.trim().parse().ok()?,
            })
        })
        .collect()
}

/// Returns the attribute if the expression is exactly one attribute of `map`, such as `new.room`.
pub fn sole_member(expression: &str, map: &str) -> Option<String> {
    let expression = expression.trim();
    let (name, rest) = members(expression, map).into_iter().next()?;
    (expression.starts_with(map) && rest.is_empty()).then_some(name)
}

/// Returns the attributes of `map` that an expression names, each with the text that follows it.
pub fn members<'a>(expression: &'a str, map: &str) -> Vec<(String, &'a str)> {
    let mut members = Vec::new();
    for (index, _) in expression.match_indices(map) {
        let (before, after) = (&expression[..index], &expression[index + map.len()..]);
        // `mykeys.X`, `new.keys.X` and the string 'keys.X' are no attributes of `keys`.
        if before.ends_with(|c: char| is_name_character(c) || matches!(c, '.' | '\'' | '"')) {
            continue;
        }
        if let Some((name, rest)) = split_member(after) {
            members.push((name.to_owned(), rest));
        }
    }
    members
}

fn split_member(text: &str) -> Option<(&str, &str)> {
    if let Some(text) = text.strip_prefix('.') {
        let end = text.find(|c: char| !is_name_character(c)).unwrap_or(text.len());
        return (end > 0).then(|| text.split_at(end));
    }
    let (name, rest) = split_literal(text.strip_prefix('[')?)?;
    Some((name, rest.strip_prefix(']')?))
}

/// Splits a string literal without escapes from the text that follows it.
fn split_literal(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_key_names_in_every_notation() {
        assert_eq!(key_names("keys.PK + keys['S K'] + keys[\"T\"]"), ["PK", "S K", "T"]);
        assert_eq!(key_names("mykeys.PK + new.keys.X + 'keys.Y' + keys[0]"), [""; 0]);
    }

    #[test]
    fn finds_split_expressions() {
        let expected = SplitExpr { key: "SK".to_owned(), separator: "#".to_owned(), index: 1 };
        for text in ["keys.SK.split('#')[1]", "string(keys['SK'].split(\"#\")[1]) + keys.PK"] {
            assert_eq!(split_exprs(text), std::slice::from_ref(&expected), "{text}");
        }
        assert_eq!(split_exprs("keys.SK.split('#')[n]"), []);
    }

    #[test]
    fn finds_a_sole_member_only_as_the_whole_expression() {
        assert_eq!(sole_member(" new.room ", "new").as_deref(), Some("room"));
        assert_eq!(sole_member("new.room + 'x'", "new"), None);
        assert_eq!(sole_member("string(new.room)", "new"), None);
    }
}
