//! A checkpoint of thousands of shards in a real API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use stream_notifier::api::StreamNotifier;
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ConfigMapStore, StartKind, StartPoint, StoreError,
};
use stream_notifier::model::{Position, SequenceNumber, ShardId, StreamLabel};
use stream_notifier_tests::namespace::Namespace;

use crate::fixture::{cluster, identity, manifest};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";

/// So many shards in each of two streams, with the longest keys and numbers that there can be.
fn checkpoint(shards: u32, epoch: u64) -> Result<Checkpoint> {
    let streams = ["2024-12-03T08:06:15.779", "2026-11-22T10:00:00.123"].map(StreamLabel::new);
    let at = Timestamp::from_second(1_790_000_000)?;
    let mut entries = BTreeMap::new();
    for (stream, n) in streams.iter().flat_map(|stream| (0..shards).map(move |n| (stream, n))) {
        let number = format!("{epoch}{n:039}");
        let number = SequenceNumber::parse(&number).context("no number")?;
        let id = ShardId::new(stream, format!("shardId-0000000157368984{n:04}-864758bb"));
        entries.insert(id, Position::After(number));
    }
    Ok(Checkpoint {
        holder: "stream-notifier-7f9c5d8b6-x2x4k-3f2a9d01".to_owned(),
        epoch,
        start: StartPoint { stream: streams[0].arn(TABLE), kind: StartKind::Latest, at },
        read_at: at,
        shards: entries,
    })
}

/// The store of a notifier that nobody works on, with the rights of the operator.
async fn store(namespace: &Namespace) -> Result<ConfigMapStore> {
    let stream = format!("{TABLE}/stream/2024-12-03T08:06:15.779");
    let manifest =
        manifest("large", &stream, "abcdefghij.execute-api.eu-west-1.amazonaws.com", "api");
    namespace.apply(&manifest.to_string()).await?;
    let notifier = namespace.get(&["streamnotifier", "large"]).await?;
    let notifier: StreamNotifier = serde_json::from_value(notifier)?;
    // As the operator does before it makes a client.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = identity(cluster().await?, namespace).await?;
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    ConfigMapStore::new(Client::try_from(config)?, &notifier).context("no store")
}

#[tokio::test]
async fn eight_thousand_shards_are_stored_and_read_back_and_too_many_are_refused() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    let store = store(&namespace).await?;
    let mut version = None;
    for epoch in 1..=3 {
        // Every position moves.
        let written = checkpoint(4_000, epoch)?;
        version = Some(store.save(&written.to_data(), version.as_ref()).await?);
        let stored = store.load().await?.context("nothing is stored")?;
        ensure!(Some(&stored.version) == version.as_ref());
        ensure!(stored.data.len() > 8_000, "{} keys", stored.data.len());
        ensure!(Checkpoint::from_data(&stored.data)? == written, "what is read is something else");
    }
    let before = store.load().await?;
    // More than etcd takes, and more than a ConfigMap may have.
    for shards in [5_500, 8_000] {
        let refused = store.save(&checkpoint(shards, 4)?.to_data(), version.as_ref()).await;
        ensure!(matches!(refused, Err(StoreError::TooLarge(_))), "{refused:?}");
        ensure!(store.load().await? == before);
    }
    namespace.passed();
    Ok(())
}
