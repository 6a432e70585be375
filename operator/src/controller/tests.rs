//! What `/readyz` and `/metrics` are told by a controller whose API server cannot be reached, or has
//! nothing.

use axum::http::StatusCode;
use axum::{Json, Router};
use kube::config::Config as KubeConfig;
use serde_json::json;
use tokio::net::TcpListener;

use crate::api::Reason;
use crate::aws::AwsConfig;
use crate::controller::*;
use crate::rules::EvaluatorPool;
use crate::telemetry::{Component, Health, HealthSnapshot, Metrics, Problem};
use crate::worker::{Endpoints, RateLimiters};

/// A controller that has listed everything. Nothing listens where its API server should be.
async fn context() -> Context {
    context_at("http://127.0.0.1:1").await
}

async fn context_at(api_server: &str) -> Context {
    let config = KubeConfig::new(api_server.parse().unwrap());
    let client = Client::try_from(config).unwrap();
    Context {
        client: client.clone(),
        factory: WorkerFactory {
            aws: AwsConfig::from_environment().await,
            endpoints: Endpoints { allowed: vec![], template: None },
            evaluators: EvaluatorPool::Inline,
            rate_limiters: RateLimiters::new(1000, 5000),
            holder: "here".to_owned(),
            metrics: Metrics::default(),
        },
        events: EventRecorder::new(client, "here"),
        supervisor: Supervisor::new(CancellationToken::new()),
        told: Told::default(),
        reconcile_tx: mpsc::unbounded_channel().0,
        known: Known::default(),
        initial_list_done: AtomicBool::new(true),
    }
}

/// A stored notifier of this name, whose spec is as given.
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
async fn not_ready_while_a_spec_is_invalid_or_does_not_parse() {
    let context = Arc::new(context().await);
    for (name, spec) in [("good", spec(TABLE)), ("bad", spec("orders")), ("later", json!({}))] {
        // The status cannot be written.
        let _ = reconcile(stored(name, spec), context.clone()).await;
    }
    assert_eq!(context.failures(), ["dev/bad: Invalid", "dev/later: unreadable"]);
    let _ = reconcile(stored("bad", spec(TABLE)), context.clone()).await;
    assert_eq!(context.failures(), ["dev/later: unreadable"]);
    stop_orphaned_workers(&context, &reflector::store().0);
    assert_eq!(context.failures(), [""; 0], "deleted while nobody watched");
}

#[tokio::test]
async fn each_notifier_has_its_conditions_among_the_metrics() {
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
    let id = NotifierId { namespace: "dev".to_owned(), name: "bad".to_owned() };
    forget(&context, &id);
    assert_eq!((of("bad", "Ready"), of("good", "Ready")), (None, Some(1)));
    stop_orphaned_workers(&context, &reflector::store().0);
    assert_eq!(context.factory.metrics.encode(), "# EOF\n", "deleted while nobody watched");
}

/// As one that was deleted unwatched while a reconcile waited for its worker to stop: nothing else
/// would end the next one.
#[tokio::test]
async fn a_notifier_that_is_not_found_is_looked_at_again() {
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
    let answers = Router::new().fallback(async move || (StatusCode::NOT_FOUND, not_found));
    let server = tokio::spawn(axum::serve(listener, answers).into_future());
    let context = Arc::new(context_at(&format!("http://{address}")).await);
    let again = reconcile(stored("gone", spec(TABLE)), context.clone()).await.unwrap();
    assert_eq!(again, Action::requeue(ERROR_REQUEUE));
    server.abort();
}

#[tokio::test]
async fn one_line_tells_of_many_parts_in_the_same_trouble() {
    let context = context().await;
    let id = NotifierId { namespace: "dev".to_owned(), name: "orders".to_owned() };
    let work = |health: Arc<Health>, stop: CancellationToken| async move {
        for part in [Component::Connections, Component::RowDeletionGuard, Component::Gateway] {
            health.set_problem(part, Problem::new(Reason::NoCredentials, String::new()));
        }
        stop.cancelled().await;
    };
    let (told, mut changes) = mpsc::unbounded_channel();
    let revision = Revision { uid: "a".to_owned(), generation: 1 };
    let changed = move || {
        let _ = told.send(());
    };
    context.supervisor.start(id.clone(), revision.clone(), work, changed);
    let all = |picture: HealthSnapshot| picture.problems.len() == 3;
    while !context.supervisor.health(&id, &revision).is_some_and(all) {
        changes.recv().await.unwrap();
    }
    assert_eq!(context.failures(), ["dev/orders: NoCredentials"]);
    context.supervisor.stop(&id).await;
}
