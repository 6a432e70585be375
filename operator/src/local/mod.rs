//! Local mode: runs one notifier on one machine, with nothing else installed.
//!
//! It consists of an embedded DynamoDB with a stream, a WebSocket gateway that behaves like API Gateway,
//! and a page to change an item and watch the messages. The worker and the AWS clients are those of
//! `run`, so this folder corrects every difference between the emulators and AWS.

pub mod data_dir;
pub mod dynamodb;
pub mod error;
pub mod gateway;
pub mod local_host_only;
pub mod manifest;
pub mod page;
pub mod plan;
pub mod serve;
#[cfg(test)]
pub mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{StreamNotifier, StreamNotifierSpec};
use crate::local::data_dir::DataDir;
use crate::local::dynamodb::emulator::Emulator;
use crate::local::dynamodb::provision::ensure_tables;
use crate::local::dynamodb::server::TableServer;
use crate::local::error::LocalError;
use crate::local::gateway::Gateway;
use crate::local::gateway::connection_rows::ConnectionRows;
use crate::local::page::PageState;
use crate::local::plan::Plan;
use crate::local::plan::example::Example;
use crate::local::plan::hints::{ServerUrls, hint_lines};
use crate::local::serve::{bind, serve_until};

/// Options of local mode.
pub struct Options {
    pub manifest: StreamNotifier,
    /// Address on which the servers listen.
    pub listen_address: IpAddr,
    /// Port of the embedded DynamoDB; 0 selects a free port.
    pub dynamodb_port: u16,
    /// Port of the gateway and the page; 0 selects a free port.
    pub port: u16,
    /// Key attributes of the table, partition key first. Empty to derive them from the manifest.
    pub keys: Vec<String>,
    /// Directory of tables and checkpoint. `None` keeps both in memory.
    pub data_dir: Option<PathBuf>,
}

/// Running local mode.
pub struct Local {
    /// Endpoint of DynamoDB and DynamoDB Streams. Example: `http://127.0.0.1:8000`.
    pub dynamodb_endpoint: String,
    /// Endpoint of `@connections`, with the stage. Example: `http://127.0.0.1:8080/api`.
    pub gateway_endpoint: String,
    /// Spec of the manifest, with the `streamArn` of the embedded stream.
    pub spec: StreamNotifierSpec,
    /// File of the checkpoint. `None` keeps it in memory.
    pub checkpoint_file: Option<PathBuf>,
    hints: Vec<String>,
    gateway: Gateway,
    gateway_server: GatewayServer,
    table_server: TableServer,
    /// Declared last, because fields are dropped in order. The directory stays locked until then.
    _data_dir: Option<DataDir>,
}

struct GatewayServer {
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

/// Creates the tables of the manifest, and starts DynamoDB, the gateway and the page.
pub async fn start(options: Options) -> Result<Local, LocalError> {
    let spec = &options.manifest.spec;
    let plan = Plan::from_spec(spec, &options.keys)?;
    let ip = options.listen_address;
    let table_address = SocketAddr::new(ip, options.dynamodb_port);
    let (table_listener, dynamodb_endpoint) = listen(table_address, "--dynamodb-port")?;
    let (listener, gateway_origin) = listen(SocketAddr::new(ip, options.port), "--port")?;

    let data_dir = options.data_dir.as_deref().map(DataDir::lock).transpose()?;
    let emulator = open_tables(data_dir.as_ref().map(DataDir::tables_file), &plan)?;
    let stream_arn = Some(ensure_tables(&emulator, &plan).await?);
    let rows = ConnectionRows::new(emulator.clone(), plan.connections.clone(), &spec.connections);
    rows.clear()
        .await
        .map_err(|source| LocalError::Table { action: "delete old connections", source })?;

    let example = Example::from_spec(spec, &plan);
    let exposed_address = (!ip.is_loopback()).then_some(ip);
    let urls = ServerUrls { gateway: &gateway_origin, dynamodb: &dynamodb_endpoint };
    let hints = hint_lines(spec, &plan, &example, &urls, exposed_address);
    let gateway = Gateway::new(rows, example.parameter.clone());
    let stage = spec.web_socket.stage.clone();
    let page = PageState {
        emulator: emulator.clone(),
        table: plan.items.name,
        name: options.manifest.metadata.name.unwrap_or_default(),
        stage: stage.clone(),
        exposed_address,
        example,
        gateway: gateway.clone(),
    };
    let table_server = TableServer::start(table_listener, emulator)
        .map_err(port_failed(table_address, "--dynamodb-port"))?;
    Ok(Local {
        dynamodb_endpoint,
        gateway_endpoint: stage
            .map_or_else(|| gateway_origin.clone(), |stage| format!("{gateway_origin}/{stage}")),
        spec: StreamNotifierSpec { stream_arn, table_arn: None, ..options.manifest.spec },
        checkpoint_file: data_dir.as_ref().map(DataDir::checkpoint_file),
        hints,
        gateway_server: GatewayServer::start(listener, &gateway, page),
        gateway,
        table_server,
        _data_dir: data_dir,
    })
}

impl Local {
    /// Lines to print once the worker reads every shard. The last one begins with `ready`.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Closes every WebSocket, deletes its row, and stops the servers. Stop the worker first.
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
    fn start(listener: TcpListener, gateway: &Gateway, page: PageState) -> Self {
        let stop = CancellationToken::new();
        let routes = gateway.routes(page.stage.as_deref());
        let router = crate::local::page::routes(page).merge(routes);
        let task = tokio::spawn(serve_until(listener, router, stop.clone()));
        Self { stop, task }
    }
}

fn open_tables(path: Option<PathBuf>, plan: &Plan) -> Result<Emulator, LocalError> {
    let path = path.as_deref().map(Path::to_string_lossy);
    Emulator::open(path.as_deref(), plan.location.clone())
        .map_err(|source| LocalError::Table { action: "open the tables", source })
}

/// Listens on an address. Returns the listener with its origin, as this machine reaches it.
fn listen(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, String), LocalError> {
    let listener = bind(address.ip(), address.port()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => LocalError::PortInUse { address, flag },
        _ => LocalError::Port { address, flag, source: error },
    })?;
    let mut bound = listener.local_addr().map_err(port_failed(address, flag))?;
    if bound.ip().is_unspecified() {
        bound.set_ip(match bound.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok((listener, format!("http://{bound}")))
}

fn port_failed(address: SocketAddr, flag: &'static str) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Port { address, flag, source }
}
