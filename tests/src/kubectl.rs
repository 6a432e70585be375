//! Runs kubectl with one kubeconfig, with a timeout.

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

    /// Returns a copy with another default namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self.clone() }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl and returns its output. Fails if kubectl fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// Like [`Self::run`], with text on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        command::run(self.command(arguments), input).await
    }

    /// Runs kubectl and returns its exit status and output, also if it fails.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        command::output(self.command(arguments), input).await
    }

    /// Applies manifests (YAML or JSON).
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], manifests).await.map(drop)
    }

    /// Applies manifests that the API server must reject, and returns the error.
    pub async fn apply_rejected(&self, manifests: &str) -> Result<String> {
        let output = self.output(&["apply", "-f", "-"], manifests).await?;
        ensure!(!output.status.success(), "the API server must reject:\n{manifests}");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Runs `kubectl get … -o json`.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let json = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        Ok(serde_json::from_str(&json)?)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // kubectl writes its discovery cache into HOME, which must not be the developer's.
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        let mut command = command::command(&self.program, home);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command
    }
}
