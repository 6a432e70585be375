//! A set of namespaces, as a flag of the operator sets it.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

/// Some namespaces, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    All,
    Listed(BTreeSet<String>),
}

/// A list contains a name that no namespace can have.
#[derive(Debug, Error)]
#[error(
    "{0:?} is not a namespace name; write names of lower-case letters, digits and '-', separated by commas"
)]
pub struct InvalidNamespace(String);

impl Namespaces {
    /// Parses a list of namespaces, separated by commas. An empty list stands for all namespaces.
    pub fn parse_watched(list: &str) -> Result<Self, InvalidNamespace> {
        let names = parse(list)?;
        Ok(if names.is_empty() { Self::All } else { Self::Listed(names) })
    }

    /// Parses a list of namespaces, or `*` for all of them. An empty list stands for no namespace.
    pub fn parse_allowed(list: &str) -> Result<Self, InvalidNamespace> {
        match list.trim() {
            "*" => Ok(Self::All),
            list => parse(list).map(Self::Listed),
        }
    }

    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(names) => names.contains(namespace),
        }
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("(all)"),
            Self::Listed(names) if names.is_empty() => f.write_str("(none)"),
            Self::Listed(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

fn parse(list: &str) -> Result<BTreeSet<String>, InvalidNamespace> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| match is_dns_label(name) {
            true => Ok(name.to_owned()),
            false => Err(InvalidNamespace(name.to_owned())),
        })
        .collect()
}

/// Whether a name is a DNS label, which the name of every namespace is.
fn is_dns_label(name: &str) -> bool {
    let is_alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.bytes().all(|c| is_alphanumeric(c) || c == b'-')
        && name.bytes().next().is_some_and(is_alphanumeric)
        && name.bytes().last().is_some_and(is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_namespace_once() {
        let namespaces = Namespaces::parse_watched("b, a,b,").unwrap();
        assert_eq!(namespaces.to_string(), "a,b");
        assert!(namespaces.contains("a") && !namespaces.contains("c"));
        assert_eq!(Namespaces::parse_watched("").unwrap(), Namespaces::All);
        assert_eq!(Namespaces::parse_allowed("").unwrap().to_string(), "(none)");
        assert_eq!(Namespaces::parse_allowed("*").unwrap(), Namespaces::All);
        assert!(Namespaces::All.contains("a"));
    }

    #[test]
    fn rejects_what_is_no_dns_label() {
        let long = "a".repeat(64);
        for name in ["Dev", "-a", "a-", "a.b", "a b", "*,a", "ä", &long] {
            let error = Namespaces::parse_allowed(name).unwrap_err().to_string();
            assert!(error.contains("not a namespace name"), "{name}: {error}");
        }
        assert!(Namespaces::parse_watched("*").is_err());
        assert!(Namespaces::parse_watched(&long[..63]).is_ok());
    }
}
