//! The permissions of the operator, compared with the requests that the API server has recorded.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stream_notifier_tests::wait::eventually;

use crate::release::{Release, WAIT_TIMEOUT};

/// A verb on a resource, such as `patch streamnotifiers/status`.
type Permission = String;

/// Checks that no request of the operator was denied, and that it has used each of its permissions.
pub async fn check_audit_log(
    release: &Release<'_>,
    read_log: impl Fn() -> Result<String>,
) -> Result<()> {
    let granted = granted(&release.cluster_role().await?)?;
    let account = release.account().await?;
    eventually(WAIT_TIMEOUT, "every permission to be used", async || {
        let mut used = BTreeSet::new();
        for line in read_log()?.lines() {
            let event: Value = serde_json::from_str(line)?;
            if event["user"]["username"] == *account {
                ensure!(event["responseStatus"]["code"] != 403, "denied: {event}");
                used.extend(permission(&event));
            }
        }
        let unused: Vec<_> = granted.difference(&used).collect();
        ensure!(unused.is_empty(), "the operator has not used {unused:?}");
        Ok(())
    })
    .await
}

fn permission(event: &Value) -> Option<Permission> {
    let object = &event["objectRef"];
    let resource = object["resource"].as_str()?;
    let subresource = object["subresource"].as_str().map(|name| format!("/{name}"));
    Some(format!("{} {resource}{}", event["verb"].as_str()?, subresource.unwrap_or_default()))
}

fn granted(role: &Value) -> Result<BTreeSet<Permission>> {
    let texts = |list: &Value| -> Result<Vec<String>> {
        let list = list.as_array().context("no list")?.iter();
        list.map(|text| text.as_str().map(str::to_owned).context("not a string")).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().context("no rules")? {
        for resource in texts(&rule["resources"])? {
            for verb in texts(&rule["verbs"])? {
                granted.insert(format!("{verb} {resource}"));
            }
        }
    }
    Ok(granted)
}
