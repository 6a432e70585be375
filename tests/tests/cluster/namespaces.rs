//! The namespaces that an operator watches, and those that may use its AWS identity.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::namespace::Namespace;

use crate::fixture::{TestEnv, WAIT_TIMEOUT, cluster};

const NAME: &str = "namespaces";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// Grants the permissions that the operator has in its own namespace.
async fn grant(env: &TestEnv, namespace: &Namespace) -> Result<()> {
    let account = "stream-notifier";
    let role = env.namespace.get(&["role", account]).await?;
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let subject =
        json!({"kind": "ServiceAccount", "name": account, "namespace": env.namespace.name()});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": version, "kind": "Role", "metadata": {"name": account}, "rules": role["rules"]},
        {
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": {"name": account},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [subject],
        },
    ]});
    namespace.apply(&objects.to_string()).await
}

async fn wait_ready(namespace: &Namespace) -> Result<()> {
    let timeout = format!("--timeout={}s", WAIT_TIMEOUT.as_secs());
    let name = format!("streamnotifier/{NAME}");
    namespace.run(&["wait", "--for=condition=Ready", &timeout, &name]).await.map(drop)
}

async fn status(namespace: &Namespace) -> Result<Value> {
    Ok(namespace.get(&["streamnotifier", NAME]).await?["status"].take())
}

#[tokio::test]
async fn reconciles_the_listed_namespaces_with_a_role_in_each() -> Result<()> {
    let env = TestEnv::new().await?;
    let cluster = cluster().await?;
    let second = cluster.namespace().await?;
    let denied = cluster.namespace().await?;
    let unlisted = cluster.namespace().await?;
    let manifest = env.manifest(NAME);
    for namespace in [&second, &denied, &unlisted] {
        namespace.apply(&manifest.to_string()).await?;
    }
    grant(&env, &second).await?;
    grant(&env, &unlisted).await?;

    let listed = [env.namespace.name(), second.name(), denied.name()];
    let operator = env.start_operator_of(&listed)?;
    env.apply_and_wait_ready(&manifest).await?;
    wait_ready(&second).await?;
    // A namespace without permissions does not delay the others.
    let ready = operator.readyz().await?;
    let problem = format!("{}: StreamNotifiers are not listed yet", denied.name());
    ensure!(!ready.status.is_success() && ready.text().contains(&problem), "{}", ready.text());
    ensure!(status(&denied).await?.is_null());

    grant(&env, &denied).await?;
    wait_ready(&denied).await?;
    ensure!(status(&unlisted).await?.is_null());
    operator.stop().await?;
    for namespace in [second, denied, unlisted] {
        namespace.passed();
    }
    env.passed();
    Ok(())
}

#[tokio::test]
async fn runs_notifiers_only_where_the_identity_is_allowed() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    let start = |namespaces: &str| {
        let flag = ("STREAM_NOTIFIER_OPERATOR_IDENTITY_NAMESPACES", namespaces);
        env.start_operator_with(env.proxy.endpoint(), &[flag])
    };
    let operator = start(env.namespace.name())?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    env.update_item(PK, SK, 1).await?;
    client.wait_until(WAIT_TIMEOUT, "the first change", |received| !received.is_empty()).await?;
    operator.stop().await?;

    let (checkpoint, requests) = (env.checkpoint(NAME).await?, env.proxy.requests().len());
    let operator = start("other")?;
    let message = env.wait_stalled(NAME, "IdentityNotAllowed").await?;
    let names = [env.namespace.name(), "aws.operatorIdentity.namespaces"];
    ensure!(names.iter().all(|name| message.contains(name)), "{message}");
    let ready = operator.readyz().await?;
    ensure!(ready.text().contains("IdentityNotAllowed"), "{}", ready.text());
    env.update_item(PK, SK, 2).await?;
    operator.stop().await?;
    ensure!(env.checkpoint(NAME).await? == checkpoint);
    ensure!(env.proxy.requests().len() == requests, "the operator sent a request to AWS");

    let operator = start("*")?;
    let received =
        client.wait_until(WAIT_TIMEOUT, "both changes", |received| received.len() >= 2).await?;
    ensure!(received[1].json()?["value"] == "2", "{received:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}
