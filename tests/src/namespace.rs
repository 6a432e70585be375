//! A namespace of one test: gone after it, and shown when the test did not reach its end.

use std::ops::Deref;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::kubectl::Kubectl;
use crate::scratch;

/// Behaves as the [`Kubectl`] of its namespace.
pub struct Namespace {
    name: String,
    cluster: Kubectl,
    kubectl: Kubectl,
    passed: bool,
}

impl Namespace {
    /// Pods in it must meet the Pod Security Standard *restricted*, as in a careful cluster.
    pub(crate) async fn create(kubectl: &Kubectl) -> Result<Self> {
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

    /// The last line of a test. Without it (a panic, an error that left the test) the objects of the
    /// namespace are shown.
    pub fn passed(mut self) {
        self.passed = true;
    }

    fn show(&self) {
        // Every namespace has this one ConfigMap.
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
            self.show();
        }
        if !scratch::keep() {
            // Its objects go while the next test runs; nobody has to wait for that.
            let _ = self
                .cluster
                .command(&["delete", "namespace", &self.name, "--wait=false"])
                .stdout(Stdio::null())
                .status();
        }
    }
}
