//! What an expression's text tells without evaluating it: which attributes it names, and where it
//! cuts a key. Used for names and examples only, so a guess that is wrong misleads nobody's data.

/// The key attributes that an expression names, as `keys.X`, `keys['X']` or `keys["X"]`, in the
/// order of their appearance.
pub fn key_names(expression: &str) -> Vec<String> {
    members(expression, "keys").into_iter().map(|(name, _)| name).collect()
}

/// A place where an expression cuts a key: `keys.SK.split('#')[1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitExpr {
    /// The key attribute.
    pub key: String,
    /// What it is cut at.
    pub separator: String,
    /// Which part is taken, from 0.
    pub index: usize,
}

/// Every place where an expression cuts a key.
pub fn split_exprs(expression: &str) -> Vec<SplitExpr> {
    members(expression, "keys")
        .into_iter()
        .filter_map(|(key, rest)| {
            let (separator, rest) = quoted(rest.strip_prefix(".split(")?)?;
            let (index, _) = rest.strip_prefix(")[")?.split_once(']')?;
            Some(SplitExpr {
                key,
                separator: separator.to_owned(),
                index: index.trim().parse().ok()?,
            })
        })
        .collect()
}

/// The attribute, if the expression is nothing but one attribute of `map` (`new.room`).
pub fn sole_member(expression: &str, map: &str) -> Option<String> {
    let expression = expression.trim();
    let (name, rest) = members(expression, map).into_iter().next()?;
    (expression.starts_with(map) && rest.is_empty()).then_some(name)
}

/// The attributes of `map` that an expression names, each with the text that follows it.
pub fn members<'a>(expression: &'a str, map: &str) -> Vec<(String, &'a str)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices(map) {
        let (before, after) = (&expression[..at], &expression[at + map.len()..]);
        // `mykeys.X`, `new.keys.X` and the text 'keys.X' are none.
        if before.ends_with(|c: char| is_name(c) || matches!(c, '.' | '\'' | '"')) {
            continue;
        }
        if let Some((name, rest)) = member(after) {
            found.push((name.to_owned(), rest));
        }
    }
    found
}

fn member(text: &str) -> Option<(&str, &str)> {
    if let Some(text) = text.strip_prefix('.') {
        let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
        return (end > 0).then(|| text.split_at(end));
    }
    let (name, rest) = quoted(text.strip_prefix('[')?)?;
    Some((name, rest.strip_prefix(']')?))
}

/// A string literal without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        assert_eq!(key_names("keys.PK + keys['S K'] + keys[\"T\"]"), ["PK", "S K", "T"]);
        assert_eq!(key_names("mykeys.PK + new.keys.X + 'keys.Y' + keys[0]"), [""; 0]);
    }

    #[test]
    fn cuts_are_found() {
        let cut = SplitExpr { key: "SK".to_owned(), separator: "#".to_owned(), index: 1 };
        for text in ["keys.SK.split('#')[1]", "string(keys['SK'].split(\"#\")[1]) + keys.PK"] {
            assert_eq!(split_exprs(text), std::slice::from_ref(&cut), "{text}");
        }
        assert_eq!(split_exprs("keys.SK.split('#')[n]"), []);
    }

    #[test]
    fn a_sole_member_is_the_whole_expression() {
        assert_eq!(sole_member(" new.room ", "new").as_deref(), Some("room"));
        assert_eq!(sole_member("new.room + 'x'", "new"), None);
        assert_eq!(sole_member("string(new.room)", "new"), None);
    }
}
