//! A regular expression in RE2 syntax with a bounded cost of searching.
//!
//! A search takes at most the product of text length and compiled size. This product can be large:
//! with `(?:[01]*1[01]{800})+x`, each byte of the text takes 5 µs. A pattern is therefore charged
//! by its compiled size.

use regex::{Error, Regex, RegexBuilder};

/// The maximum length of a pattern, in bytes. The schema has the same bound for key filters.
const MAX_PATTERN_BYTES: usize = 512;
/// Classes of compiled patterns: the maximum size in KiB, and the cost of each byte of text.
const SIZE_CLASSES: [(usize, usize); 3] = [(2, 100), (16, 1_000), (64, 5_000)];
/// The cost of compiling each byte of a pattern. It is high because each `(?i)\pL` stands for
/// thousands of letters.
const COMPILE_COST_PER_BYTE: usize = 100_000;

/// The maximum size of the lazy DFA's cache, in bytes, for each thread and direction.
const MAX_DFA_BYTES: usize = 256 << 10;

/// Budget for the literal patterns of one spec, because each one takes time to compile and then
/// keeps its memory.
#[derive(Debug)]
pub(crate) struct PatternBudget(usize);

impl PatternBudget {
    /// The budget of a spec, in bytes.
    const TOTAL_BYTES: usize = 2_048;
    /// What each pattern costs besides its length, in bytes.
    const BYTES_PER_PATTERN: usize = 32;

    /// The whole budget of a spec.
    pub(crate) fn new() -> Self {
        Self(Self::TOTAL_BYTES)
    }

    fn charge(&mut self, pattern: &str) -> Result<(), String> {
        self.0 = self.0.checked_sub(pattern.len() + Self::BYTES_PER_PATTERN).ok_or_else(|| {
            format!(
                "exceeds the {} bytes for all patterns of a spec, of which each pattern takes its \
                 length and {} more; use fewer or shorter patterns",
                Self::TOTAL_BYTES,
                Self::BYTES_PER_PATTERN
            )
        })?;
        Ok(())
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    cost_per_byte: usize,
}

impl Pattern {
    /// Compiles a pattern of a spec. An error states the problem and the fix.
    pub(crate) fn compile(pattern: &str, budget: &mut PatternBudget) -> Result<Self, String> {
        budget.charge(pattern)?;
        Self::compile_with(pattern, &SIZE_CLASSES)
    }

    /// Compiles a pattern that comes from a record. It uses only the largest size class, because
    /// such a pattern is not kept.
    pub(crate) fn compile_once(pattern: &str) -> Result<Self, String> {
        Self::compile_with(pattern, &SIZE_CLASSES[SIZE_CLASSES.len() - 1..])
    }

    fn compile_with(pattern: &str, size_classes: &[(usize, usize)]) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "has more than {MAX_PATTERN_BYTES} bytes; write a shorter pattern"
            ));
        }
        for &(kib, cost_per_byte) in size_classes {
            let mut builder = RegexBuilder::new(pattern);
            match builder.size_limit(kib << 10).dfa_size_limit(MAX_DFA_BYTES).build() {
                Ok(regex) => return Ok(Self { regex, cost_per_byte }),
                Err(Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(format!("is not a pattern in RE2 syntax: {error}")),
            }
        }
        Err("is too large when compiled; use smaller repetitions".to_owned())
    }

    /// The cost of [`Self::compile_once`].
    pub(crate) fn compile_cost(pattern: &str) -> usize {
        pattern.len().saturating_add(1).saturating_mul(COMPILE_COST_PER_BYTE)
    }

    /// The cost of [`Self::is_match`].
    pub(crate) fn search_cost(&self, text: &str) -> usize {
        text.len().saturating_mul(self.cost_per_byte)
    }

    /// Whether the pattern matches a part of the text.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}
