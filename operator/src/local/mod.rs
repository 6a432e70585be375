//! The whole path on one machine with nothing installed: an embedded table with a stream, a
//! WebSocket gateway that behaves as API Gateway does, and a page to change an item and watch
//! messages arrive. The worker and the AWS clients are those of `run`; only endpoints differ, and
//! what the emulator gets wrong is mended here, never there.

pub mod data_dir;
pub mod dynamodb;
pub mod error;
pub mod gateway;
pub mod loopback_only;
pub mod page;
pub mod plan;
pub mod serve;
#[cfg(test)]
pub mod tests;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use axum::middleware::from_fn;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{StreamNotifier, StreamNotifierSpec};
use crate::checkpoint::FileStore;
use crate::local::data_dir::DataDir;
use crate::local::dynamodb::emulator::Dynamo;
use crate::local::dynamodb::server::TableServer;
use crate::local::error::LocalError;
use crate::local::gateway::Gateway;
use crate::local::gateway::connection_rows::Rows;
use crate::local::page::Page;
use crate::local::plan::Plan;
use crate::local::plan::example::Example;

/// What the user asks for.
pub struct Options {
    /// The notifier to run.
    pub manifest: StreamNotifier,
    /// Port of the embedded DynamoDB; 0 is any free one.
    pub dynamodb_port: u16,
    /// Port of gateway and page; 0 is any free one.
    pub port: u16,
    /// The table's key attributes, where the manifest does not tell: partition key, sort key.
    pub keys: Vec<String>,
    /// Where tables and checkpoint are kept; in memory if not given.
    pub data_dir: Option<PathBuf>,
}

/// The running parts.
pub struct Local {
    /// The endpoint for DynamoDB and its streams. Example: `http://127.0.0.1:8000`.
    pub dynamodb_endpoint: String,
    /// The endpoint for `@connections`, stage included. Example: `http://127.0.0.1:8080/api`.
    pub gateway_endpoint: String,
    /// The manifest's spec, with the `streamArn` of the embedded stream.
    pub spec: StreamNotifierSpec,
    /// Where the worker's checkpoint is kept.
    pub checkpoint: FileStore,
    hints: Vec<String>,
    gateway: Gateway,
    gateway_server: GatewayServer,
    table_server: TableServer,
    /// Given up last: until then no other process may use the directory.
    _data_dir: Option<DataDir>,
}

struct GatewayServer {
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

/// Makes the manifest's tables and serves them, the gateway and the page.
pub async fn start(options: Options) -> Result<Local, LocalError> {
    let spec = &options.manifest.spec;
    let plan = Plan::of(spec, &options.keys)?;
    let (table_listener, dynamodb_endpoint) = listen(options.dynamodb_port, "--dynamodb-port")?;
    let (listener, gateway_origin) = listen(options.port, "--port")?;

    let data_dir = options.data_dir.as_deref().map(DataDir::take).transpose()?;
    let dynamo = open(data_dir.as_ref().map(DataDir::tables), &plan)?;
    let stream_arn = Some(crate::local::dynamodb::provision::ensure(&dynamo, &plan).await?);
    let rows = Rows::new(dynamo.clone(), plan.connections.clone(), &spec.connections);
    let cleared = rows.clear().await;
    cleared.map_err(|source| LocalError::Table { what: "deleting stale connections", source })?;

    let example = Example::of(spec, &plan);
    let places =
        crate::local::plan::hints::Places { origin: &gateway_origin, dynamodb: &dynamodb_endpoint };
    let hints = crate::local::plan::hints::lines(spec, &plan, &example, &places);
    let gateway = Gateway::new(rows, example.parameter.clone());
    let stage = spec.web_socket.stage.clone();
    let page = Page {
        dynamo: dynamo.clone(),
        table: plan.items.name,
        name: options.manifest.metadata.name.unwrap_or_default(),
        stage: stage.clone(),
        example,
        gateway: gateway.clone(),
    };
    let table_server = TableServer::start(table_listener, dynamo)
        .map_err(port_failed(options.dynamodb_port, "--dynamodb-port"))?;
    Ok(Local {
        dynamodb_endpoint,
        gateway_endpoint: stage
            .map_or_else(|| gateway_origin.clone(), |stage| format!("{gateway_origin}/{stage}")),
        spec: StreamNotifierSpec { stream_arn, table_arn: None, ..options.manifest.spec },
        checkpoint: data_dir.as_ref().map_or_else(FileStore::in_memory, |directory| {
            FileStore::in_file(directory.checkpoint())
        }),
        hints,
        gateway_server: GatewayServer::start(listener, &gateway, page),
        gateway,
        table_server,
        _data_dir: data_dir,
    })
}

impl Local {
    /// Lines to print once the worker reads; the last one begins with `ready`.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Closes every WebSocket, deletes its row, and stops the servers. The worker is stopped
    /// before.
    pub async fn stop(self) -> Result<(), LocalError> {
        self.gateway.stop().await;
        self.gateway_server.stop.cancel();
        let stopped = self.gateway_server.task.await;
        stopped.map_err(io::Error::other).flatten().map_err(LocalError::Stop)?;
        let stopped = tokio::task::spawn_blocking(|| self.table_server.stop()).await;
        stopped.map_err(io::Error::other).flatten().map_err(LocalError::Stop)
    }
}

impl GatewayServer {
    fn start(listener: TcpListener, gateway: &Gateway, page: Page) -> Self {
        let stop = CancellationToken::new();
        let routes = gateway.routes(page.stage.as_deref());
        let router = crate::local::page::routes(page)
            .merge(routes)
            .layer(from_fn(crate::local::loopback_only::local_only));
        let task = tokio::spawn(crate::local::serve::until(listener, router, stop.clone()));
        Self { stop, task }
    }
}

fn open(path: Option<PathBuf>, plan: &Plan) -> Result<Dynamo, LocalError> {
    let text = path.as_deref().map(Path::to_string_lossy);
    Dynamo::open(text.as_deref(), plan.home.clone())
        .map_err(|source| LocalError::Table { what: "opening the tables", source })
}

/// A listener, and the origin of what it serves.
fn listen(port: u16, flag: &'static str) -> Result<(TcpListener, String), LocalError> {
    let listener = crate::local::serve::bind(port).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => LocalError::PortInUse { port, flag },
        _ => LocalError::Port { port, flag, source: error },
    })?;
    let address = listener.local_addr().map_err(port_failed(port, flag))?;
    Ok((listener, format!("http://{address}")))
}

fn port_failed(port: u16, flag: &'static str) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Port { port, flag, source }
}
