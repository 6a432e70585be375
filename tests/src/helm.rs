//! Runs Helm as one identity, each time within a limit.

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

    /// What it prints; an error if it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        // Its caches, too, are kept beside the kubeconfig.
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        let mut command = command::command(&self.program, home);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command::run(command, "").await
    }
}
