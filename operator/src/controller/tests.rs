//! Readiness and metrics of a controller whose API server is unreachable or empty.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::{Json, Router};
use kube::Client;
use kube::config::Config as KubeConfig;
use kube_runtime::controller::Action;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::aws::AwsConfig;
use crate::controller::context::{Context, Guarded};
use crate::controller::events::EventRecorder;
use crate::controller::namespaces::Namespaces;
use crate::controller::reconcile::{forget, reconcile};
use crate::controller::registry::NotifierRegistry;
use crate::controller::update_status::ERROR_REQUEUE;
use crate::rules::EvaluatorPool;
use crate::telemetry::{
    Component, HealthSnapshot, Metrics, Problem, ReadinessCheck as _, assert_message_form,
};
use crate::worker::{Endpoints, NotifierId, RateLimiters, Revision, RunWorker, WorkerFactory};

/// A controller that has listed all notifiers. Its API server is unreachable.
async fn context() -> Context {
    context_at("http://127.0.0.1:1").await
}

async fn context_at(api_server: &str) -> Context {
    let config = KubeConfig::new(api_server.parse().unwrap());
    let client = Client::try_from(config).unwrap();
    Context {
        client: client.clone(),
        factory: WorkerFactory {
            aws: AwsConfig::from_environment().await.unwrap(),
            endpoints: Endpoints { allowed: vec![], template: None },
            evaluators: EvaluatorPool::Inline,
            rate_limiters: RateLimiters::new(1000, 5000),
            holder: "here".to_owned(),
            metrics: Metrics::default(),
        },
        events: EventRecorder::new(client, "here"),
        registry: NotifierRegistry::new(CancellationToken::new()),
        reconcile_tx: mpsc::unbounded_channel().0,
        identity_namespaces: Namespaces::All,
        unlisted: Mutex::default(),
    }
}

/// A stored notifier.
fn stored(name: &str, spec: serde_json::Value) -> Arc<Guarded> {
    let stored = json!({
        "apiVersion": "streamnotifier.dev/v1alpha1",
        "kind": "StreamNotifier",
        "metadata": {"namespace": "dev", "name": name, "uid": name, "generation": 1},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(stored).unwrap())
}

fn spec(table: &str) -> serde_json::Value {
    json!({
        "suspend": true,
        "tableArn": table,
        "connections": {"tableName": "connections"},
        "webSocket": {"domain": "abc123.execute-api.eu-west-1.amazonaws.com", "stage": "prod"},
    })
}

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";

#[tokio::test]
async fn is_not_ready_while_a_spec_is_invalid_or_does_not_parse() {
    let context = Arc::new(context().await);
    for (name, spec) in [("good", spec(TABLE)), ("bad", spec("orders")), ("later", json!({}))] {
        // Fails, because the status cannot be written.
        let _ = reconcile(stored(name, spec), context.clone()).await;
    }
    assert_eq!(context.failures(), ["dev/bad: Invalid", "dev/later: unreadable"]);
    let _ = reconcile(stored("bad", spec(TABLE)), context.clone()).await;
    assert_eq!(context.failures(), ["dev/later: unreadable"]);
    forget(&context, &NotifierId { namespace: "dev".to_owned(), name: "later".to_owned() });
    assert_eq!(context.failures(), [""; 0]);
}

#[tokio::test]
async fn exports_the_conditions_of_each_notifier() {
    let context = Arc::new(context().await);
    let of = |name: &str, type_: &str| {
        let text = context.factory.metrics.encode();
        let begin = "stream_notifier_status_condition{namespace=\"dev\",";
        let labels = format!("{begin}name=\"{name}\",type=\"{type_}\",status=\"true\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&labels)?.parse::<u8>().ok())
    };
    for (name, spec) in [("good", spec(TABLE)), ("bad", spec("orders")), ("later", json!({}))] {
        let _ = reconcile(stored(name, spec), context.clone()).await;
        let is_good = name == "good";
        assert_eq!(of(name, "Ready"), Some(is_good.into()), "{name}");
        assert_eq!(of(name, "Stalled"), Some((!is_good).into()), "{name}");
        assert_eq!(of(name, "Degraded"), Some(0), "{name}");
    }
    let _ = reconcile(stored("bad", spec(TABLE)), context.clone()).await;
    assert_eq!((of("bad", "Ready"), of("bad", "Stalled")), (Some(1), Some(0)));
    let id = |name: &str| NotifierId { namespace: "dev".to_owned(), name: name.to_owned() };
    forget(&context, &id("bad"));
    assert_eq!((of("bad", "Ready"), of("good", "Ready")), (None, Some(1)));
    forget(&context, &id("good"));
    forget(&context, &id("later"));
    assert_eq!(context.factory.metrics.encode(), "# EOF\n");
}

#[tokio::test]
async fn is_not_ready_before_every_namespace_is_listed() {
    let context = context().await;
    let scope = Some("dev".to_owned());
    *context.unlisted.lock().unwrap() = [None, scope.clone()].into();
    context.mark_listed(&None);
    assert_eq!(context.failures(), ["dev: StreamNotifiers are not listed yet"]);
    context.mark_listed(&scope);
    assert_eq!(context.failures(), [""; 0]);
}

#[tokio::test]
async fn runs_no_worker_where_the_identity_is_not_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (written_tx, mut written) = mpsc::unbounded_channel();
    let responses = Router::new().fallback(async move |body: Bytes| {
        written_tx.send(serde_json::from_slice(&body).unwrap()).unwrap();
        (StatusCode::NOT_FOUND, "{}")
    });
    let server = tokio::spawn(axum::serve(listener, responses).into_future());
    let mut context = context_at(&format!("http://{address}")).await;
    context.identity_namespaces = Namespaces::parse_allowed("other").unwrap();
    let context = Arc::new(context);
    let mut spec = spec(TABLE);
    spec["suspend"] = json!(false);
    let _ = reconcile(stored("orders", spec), context.clone()).await;
    let revision = Revision { uid: "orders".to_owned(), generation: 1 };
    let id = NotifierId { namespace: "dev".to_owned(), name: "orders".to_owned() };
    assert!(context.registry.health(&id, &revision).is_none(), "a worker runs");
    assert_eq!(context.failures(), ["dev/orders: IdentityNotAllowed"]);
    let patch: serde_json::Value = written.recv().await.unwrap();
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let stalled = conditions.iter().find(|it| it["type"] == "Stalled").unwrap();
    let message = stalled["message"].as_str().unwrap();
    assert_eq!(
        (&stalled["status"], &stalled["reason"]),
        (&json!("True"), &json!("IdentityNotAllowed"))
    );
    assert_message_form(message, &["dev"]);
    assert!(message.contains("--operator-identity-namespaces"), "{message}");
    server.abort();
}

/// A notifier can be deleted while a reconcile waits for its worker to stop. Without another reconcile,
/// the worker that starts then would never end.
#[tokio::test]
async fn requeues_a_notifier_that_no_longer_exists() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let not_found = Json(json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "not found",
        "reason": "NotFound",
        "code": 404,
    }));
    let responses = Router::new().fallback(async move || (StatusCode::NOT_FOUND, not_found));
    let server = tokio::spawn(axum::serve(listener, responses).into_future());
    let context = Arc::new(context_at(&format!("http://{address}")).await);
    let action = reconcile(stored("deleted", spec(TABLE)), context.clone()).await.unwrap();
    assert_eq!(action, Action::requeue(ERROR_REQUEUE));
    server.abort();
}

#[tokio::test]
async fn reports_a_reason_of_several_components_once() {
    let context = context().await;
    let id = NotifierId { namespace: "dev".to_owned(), name: "orders".to_owned() };
    let run: RunWorker = Box::new(|health, stop| {
        Box::pin(async move {
            for component in
                [Component::Connections, Component::RowDeletionGuard, Component::Gateway]
            {
                health.set_problem(component, Problem::new(Reason::NoCredentials, String::new()));
            }
            stop.cancelled().await;
        })
    });
    let (changed, mut changes) = mpsc::unbounded_channel();
    let revision = Revision { uid: "a".to_owned(), generation: 1 };
    let on_change = move || {
        let _ = changed.send(());
    };
    context.registry.start(&id, revision.clone(), run, on_change);
    let has_all = |health: HealthSnapshot| health.problems.len() == 3;
    while !context.registry.health(&id, &revision).is_some_and(has_all) {
        changes.recv().await.unwrap();
    }
    assert_eq!(context.failures(), ["dev/orders: NoCredentials"]);
    context.registry.stop(&id).await;
}
