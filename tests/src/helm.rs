//! Runs Helm with one kubeconfig, with a timeout.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command;

#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Helm {
    pub fn new(program: impl Into<PathBuf>, kubeconfig: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into() }
    }

    /// Runs Helm and returns its output. Fails if Helm fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        // Helm writes its caches into HOME, which must not be the developer's.
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        let mut command = command::command(&self.program, home);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command::run(command, "").await
    }
}
