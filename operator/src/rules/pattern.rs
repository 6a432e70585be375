//! A regular expression in RE2 syntax, compiled once, and what a search costs at the worst.
//!
//! A search takes no more than the product of text and compiled pattern, but that can be much: with
//! `(?:[01]*1[01]{800})+x` each byte of the text takes five microseconds. So small patterns are told
//! from large ones.

use regex::{Error, Regex, RegexBuilder};

/// The longest pattern, in bytes; the schema has the same bound for that of a key filter.
const MAX_PATTERN_BYTES: usize = 512;
/// How much memory a compiled pattern may take, in KiB, and what a byte of text costs then.
const SIZES: [(usize, usize); 3] = [(2, 100), (16, 1_000), (64, 5_000)];
/// What it costs to compile, by the pattern's bytes: each `(?i)\pL` is thousands of letters.
const COMPILING: usize = 100_000;

/// What a search may remember of a pattern, in bytes, for each thread and direction.
const MEMORY: usize = 256 << 10;

/// What is left for the patterns of a spec: to compile one can take as long as its length, and it
/// keeps its memory.
#[derive(Debug)]
pub(crate) struct PatternBudget(usize);

impl PatternBudget {
    /// So many bytes of patterns may a spec have, and each counts as so many more.
    const BYTES: usize = 2_048;
    const EACH: usize = 32;

    /// For a whole spec.
    pub(crate) fn new() -> Self {
        Self(Self::BYTES)
    }

    fn charge(&mut self, pattern: &str) -> Result<(), String> {
        self.0 = self.0.checked_sub(pattern.len() + Self::EACH).ok_or_else(|| {
            format!(
                "is too much: all patterns together may have {} bytes, where each counts {} more; \
                 use fewer, or shorter ones",
                Self::BYTES,
                Self::EACH
            )
        })?;
        Ok(())
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    cost_of_byte: usize,
}

impl Pattern {
    /// Compiles one that stands in a spec, or says what is wrong with it.
    pub(crate) fn compile(pattern: &str, left: &mut PatternBudget) -> Result<Self, String> {
        left.charge(pattern)?;
        Self::of_size(pattern, &SIZES)
    }

    /// Compiles one that a record gives. It is not tried in several sizes, since it is not kept.
    pub(crate) fn compile_once(pattern: &str) -> Result<Self, String> {
        Self::of_size(pattern, &SIZES[SIZES.len() - 1..])
    }

    fn of_size(pattern: &str, sizes: &[(usize, usize)]) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "is longer than {MAX_PATTERN_BYTES} bytes; write a shorter pattern"
            ));
        }
        for &(kib, cost_of_byte) in sizes {
            match RegexBuilder::new(pattern).size_limit(kib << 10).dfa_size_limit(MEMORY).build() {
                Ok(regex) => return Ok(Self { regex, cost_of_byte }),
                Err(Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(format!("is not a pattern in RE2 syntax: {error}")),
            }
        }
        Err("this pattern grows too large when it is compiled; use smaller repetitions".to_owned())
    }

    /// What [`Pattern::compile_once`] costs.
    pub(crate) fn cost_of_compiling(pattern: &str) -> usize {
        pattern.len().saturating_add(1).saturating_mul(COMPILING)
    }

    /// What [`Pattern::is_in`] costs.
    pub(crate) fn cost(&self, text: &str) -> usize {
        text.len().saturating_mul(self.cost_of_byte)
    }

    /// Whether it is found somewhere in the text.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}
