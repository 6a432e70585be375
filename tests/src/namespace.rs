//! Kubernetes namespace of one test: deleted after the test, and printed if the test fails.

use std::ops::Deref;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::kubectl::Kubectl;
use crate::scratch;

/// Dereferences to the [`Kubectl`] of the namespace.
pub struct Namespace {
    name: String,
    cluster: Kubectl,
    kubectl: Kubectl,
    passed: bool,
}

impl Namespace {
    /// Creates a namespace whose Pods must meet the Pod Security Standard *restricted*.
    pub async fn create(kubectl: &Kubectl) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let manifest = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        kubectl.run_with(&["create", "-f", "-"], &manifest.to_string()).await?;
        let cluster = kubectl.clone();
        Ok(Self { kubectl: cluster.in_namespace(&name), cluster, name, passed: false })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Marks the test as passed, as its last line. Without it, the objects of the namespace are
    /// printed.
    pub fn passed(mut self) {
        self.passed = true;
    }

    fn print_objects(&self) {
        // Kubernetes creates this ConfigMap in every namespace.
        let others = "--field-selector=metadata.name!=kube-root-ca.crt";
        for kind in ["streamnotifiers", "configmaps", "leases", "events"] {
            let get = ["get", kind, others, "--output=yaml"];
            if let Ok(output) = self.kubectl.command(&get).output() {
                let text = String::from_utf8_lossy(&output.stdout);
                eprintln!("{kind} in namespace {}:\n{text}", self.name);
            }
        }
    }
}

impl Deref for Namespace {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.passed {
            self.print_objects();
        }
        if !scratch::keep() {
            // The next test does not have to wait for the deletion.
            let _ = self
                .cluster
                .command(&["delete", "namespace", &self.name, "--wait=false"])
                .stdout(Stdio::null())
                .status();
        }
    }
}
