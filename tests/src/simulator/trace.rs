//! What happened in a run, line by line with its time. Lines are made only when somebody will read
//! them: a run that fails is run once more for its lines, and two runs of a seed must have the same.

/// A run's lines, if they are wanted.
#[derive(Debug)]
pub struct Trace(Option<Vec<String>>);

impl Trace {
    /// A trace that keeps its lines, or not.
    pub fn new(is_wanted: bool) -> Self {
        Self(is_wanted.then(Vec::new))
    }

    /// Notes what happened `at` so many milliseconds after the run began.
    pub fn note(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(format!("{:>6}.{:03}  {}", at / 1_000, at % 1_000, line()));
        }
    }

    /// The lines.
    pub fn into_lines(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
