//! Timestamped trace of a run. Lines are formatted only on request, because few runs are read: a
//! run that fails is repeated for its trace. Two runs of a seed must have equal traces.

/// The lines of a run, or nothing if no trace is requested.
#[derive(Debug)]
pub struct Trace(Option<Vec<String>>);

impl Trace {
    pub fn new(is_requested: bool) -> Self {
        Self(is_requested.then(Vec::new))
    }

    /// Adds a line; `at_ms` counts from the start of the run.
    pub fn add(&mut self, at_ms: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(format!("{:>6}.{:03}  {}", at_ms / 1_000, at_ms % 1_000, line()));
        }
    }

    pub fn into_lines(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
