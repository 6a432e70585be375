//! The permissions of the operator's ServiceAccount.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::chart::chart_path;
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::kubectl::Kubectl;
use stream_notifier_tests::wait::eventually;

use super::{list, text};
use crate::fixture::WAIT_TIMEOUT;

/// All permissions of the operator: API group, resource, verb.
pub const PERMISSIONS: [(&str, &str, &str); 8] = [
    ("streamnotifier.dev", "streamnotifiers", "list"),
    ("streamnotifier.dev", "streamnotifiers", "watch"),
    ("streamnotifier.dev", "streamnotifiers/status", "patch"),
    ("", "configmaps", "create"),
    ("", "configmaps", "get"),
    ("", "configmaps", "patch"),
    ("events.k8s.io", "events", "create"),
    ("events.k8s.io", "events", "patch"),
];

/// This test runs no Pod, because an operator of all namespaces would work on those of other tests.
#[tokio::test]
async fn grants_only_the_documented_permissions_in_all_namespaces() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let namespace = control_plane.namespace().await?;
    // The ClusterRole has the name of the release.
    let release = format!("{}-stream-notifier", namespace.name());
    let role = json!({"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/notifier"});
    let annotations = format!("--set-json=serviceAccount.annotations={role}");
    let install = [
        "install",
        &release,
        &chart_path(),
        "--namespace",
        namespace.name(),
        // Another release of this run has it.
        "--set=crds.enabled=false",
        &annotations,
    ];
    helm.run(&install).await?;

    let account = namespace.get(&["serviceaccount", &release]).await?;
    ensure!(account["automountServiceAccountToken"] == false);
    ensure!(
        account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
            == role["eks.amazonaws.com/role-arn"]
    );

    let user = service_account_user(namespace.name(), &release);
    for name in [namespace.name(), "default", "kube-system"] {
        wait_permissions(control_plane, &user, name, &PERMISSIONS).await?;
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "serviceaccounts/token"),
        ("list", "configmaps"),
        ("delete", "configmaps"),
        ("list", "events.events.k8s.io"),
        ("create", "events"),
        ("update", "streamnotifiers.streamnotifier.dev"),
        ("patch", "streamnotifiers.streamnotifier.dev"),
        ("delete", "streamnotifiers.streamnotifier.dev"),
    ] {
        let can = ["auth", "can-i", verb, resource, "--all-namespaces", "--as", &user];
        let output = control_plane.kubectl().output(&can, "").await?;
        ensure!(output.stdout == b"no\n", "the operator must not {verb} {resource}");
    }

    let uninstall = ["uninstall", &release, "--namespace", namespace.name()];
    helm.run(&uninstall).await?;
    wait_permissions(control_plane, &user, namespace.name(), &[]).await?;
    namespace.passed();
    Ok(())
}

type Permissions = BTreeSet<(String, String, String)>;

/// The user name of a ServiceAccount.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Waits until a user has exactly these permissions in a namespace, besides those of every account.
///
/// The API server applies RBAC objects from its watch cache, so a change takes effect with a delay. The
/// administrator impersonates the user, because the token of a deleted account is soon rejected.
pub async fn wait_permissions(
    control_plane: &ControlPlane,
    user: &str,
    namespace: &str,
    expected: &[(&str, &str, &str)],
) -> Result<()> {
    let expected: Permissions = expected
        .iter()
        .map(|&(group, resource, verb)| (group.into(), resource.into(), verb.into()))
        .collect();
    let unprivileged = service_account_user(namespace, "default");
    let kubectl = control_plane.kubectl();
    eventually(WAIT_TIMEOUT, format!("the permissions in {namespace}"), async || {
        let common = permissions(kubectl, &unprivileged, namespace).await?;
        let mut permissions = permissions(kubectl, user, namespace).await?;
        permissions.retain(|permission| !common.contains(permission));
        ensure!(permissions == expected, "{permissions:?} instead of {expected:?}");
        Ok(())
    })
    .await
}

/// All permissions of a user in a namespace.
async fn permissions(kubectl: &Kubectl, user: &str, namespace: &str) -> Result<Permissions> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    });
    // Validation by kubectl would need more permissions.
    let create = ["create", "--validate=false", "-f", "-", "-o", "json", "--as", user];
    let review = kubectl.run_with(&create, &review.to_string()).await?;
    let review: Value = serde_json::from_str(&review)?;
    ensure!(review["status"]["incomplete"] == false, "{review}");
    let mut permissions = Permissions::new();
    for rule in list(&review["status"]["resourceRules"])? {
        // The set below cannot express a permission that is limited to resource names.
        ensure!(rule["resourceNames"].is_null(), "{rule}");
        for group in list(&rule["apiGroups"])? {
            for resource in list(&rule["resources"])? {
                for verb in list(&rule["verbs"])? {
                    permissions.insert((text(&group)?, text(&resource)?, text(&verb)?));
                }
            }
        }
    }
    Ok(permissions)
}
