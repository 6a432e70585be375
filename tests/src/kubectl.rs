//! Runs kubectl as one identity, each time within a limit.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::command;

#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

impl Kubectl {
    pub fn new(program: impl Into<PathBuf>, kubeconfig: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into(), namespace: None }
    }

    /// The same, with another default namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self.clone() }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What it prints; an error if it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// The same, with something on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        command::run(self.command(arguments), input).await
    }

    /// How it ended and what it printed, for a test in which it may fail.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        command::output(self.command(arguments), input).await
    }

    /// `kubectl apply` of these manifests (YAML or JSON).
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], manifests).await.map(drop)
    }

    /// `kubectl apply` of manifests that must be refused: what kubectl says then.
    pub async fn refused(&self, manifests: &str) -> Result<String> {
        let output = self.output(&["apply", "-f", "-"], manifests).await?;
        ensure!(!output.status.success(), "this was accepted:\n{manifests}");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// `kubectl get … -o json`.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let json = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        Ok(serde_json::from_str(&json)?)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // What it learns of the server is kept beside the kubeconfig, not in the developer's home.
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        let mut command = command::command(&self.program, home);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command
    }
}
