//! Helpers of the benchmarks with two processes: the service in a child process, and resource usage.
//!
//! The child process runs the same executable.

#![allow(dead_code, reason = "each benchmark uses only some of the helpers")]

use std::env;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodbstreams::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_dynamodbstreams::types::{Shard, ShardIteratorType};
use axum::Router;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

const SERVE: &str = "serve";

/// Whether this process is the service.
pub fn is_service() -> bool {
    env::args().any(|argument| argument == SERVE)
}

/// The service in a child process, which exits with this process.
pub struct Service {
    /// `http://127.0.0.1:<port>`.
    pub endpoint: String,
    _child: Child,
}

impl Service {
    pub async fn start() -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        let address = BufReader::new(output).lines().next_line().await?;
        Ok(Self { endpoint: format!("http://{}", address.context("no address")?), _child: child })
    }
}

/// Serves these routes until the parent process exits.
pub async fn serve(routes: Router) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener)?;
    Ok(axum::serve(listener, routes).await?)
}

/// Prints the address for the parent process, and exits when that exits.
pub fn announce(listener: &TcpListener) -> Result<()> {
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    Ok(())
}

/// The SDK's client with its defaults, but without retries.
pub fn bare_client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("local", "local", None, None, "bench"))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Requests for an iterator of each shard of the stream.
pub async fn iterator_requests(
    client: &Client,
    from: ShardIteratorType,
) -> Result<Vec<GetShardIteratorFluentBuilder>> {
    let streams = client.list_streams().send().await?;
    let arn =
        streams.streams().first().and_then(|stream| stream.stream_arn()).context("a stream")?;
    let described = client.describe_stream().stream_arn(arn).send().await?;
    let shards = described.stream_description().context("a description")?.shards().iter();
    let request = |shard: &Shard| {
        let request = client.get_shard_iterator().stream_arn(arn).shard_iterator_type(from.clone());
        Ok(request.shard_id(shard.shard_id().context("an id")?))
    };
    shards.map(request).collect()
}

/// The CPU time of this process.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resets the peak memory to the present memory.
pub fn reset_peak_memory() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// The resident memory of this process in bytes: present and peak.
pub fn memory() -> Result<[usize; 2]> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line")?;
        anyhow::Ok(
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>()? * 1024,
        )
    };
    Ok([kilobytes("VmRSS")?, kilobytes("VmHWM")?])
}
