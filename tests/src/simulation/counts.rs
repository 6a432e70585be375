//! How often everything happened, over all runs: what never happens proves nothing.

use std::collections::BTreeMap;
use std::fmt;

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// It happened once more.
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// All of this happened too.
    pub fn merge<'a>(&mut self, others: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) {
        for (what, times) in others {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Each, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (&&'static str, &u64)> {
        self.0.iter()
    }

    /// What of [`EXPECTED`] happened fewer than so many times.
    pub fn rarer_than(&self, times: u64) -> Vec<&'static str> {
        let is_rare = |what: &&&'static str| self.0.get(**what).is_none_or(|it| *it < times);
        EXPECTED.iter().filter(is_rare).copied().collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>10}  {what}"))
    }
}

/// Everything that has to happen: calls, faults and transitions.
const EXPECTED: &[&str] = &[];
