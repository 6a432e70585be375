//! The size limit of a checkpoint in a real API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource as _};
use stream_notifier::api::StreamNotifier;
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ConfigMapStore, StartKind, StartPoint, StoreError,
};
use stream_notifier::model::{Position, SequenceNumber, ShardId, StreamLabel};
use stream_notifier_tests::namespace::Namespace;

use crate::fixture::{cluster, manifest, operator_kubeconfig};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";

/// A checkpoint with `shards` shards in each of two streams, with the longest keys and sequence numbers.
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

/// The store of a notifier without a worker, with the permissions of the operator.
async fn store(namespace: &Namespace) -> Result<ConfigMapStore> {
    let stream = format!("{TABLE}/stream/2024-12-03T08:06:15.779");
    let manifest =
        manifest("large", &stream, "abcdefghij.execute-api.eu-west-1.amazonaws.com", "api");
    namespace.apply(&manifest.to_string()).await?;
    let notifier = namespace.get(&["streamnotifier", "large"]).await?;
    let notifier: StreamNotifier = serde_json::from_value(notifier)?;
    // The operator does this before it creates a client.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = operator_kubeconfig(cluster().await?, namespace).await?;
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let owner = notifier.controller_owner_ref(&()).context("the notifier must have a uid")?;
    Ok(ConfigMapStore::new(Client::try_from(config)?, namespace.name(), owner))
}

#[tokio::test]
async fn stores_eight_thousand_shards_and_rejects_a_checkpoint_over_the_limit() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    let store = store(&namespace).await?;
    let mut version = None;
    for epoch in 1..=3 {
        // Every position changes.
        let written = checkpoint(4_000, epoch)?;
        version = Some(store.save(&written.to_data(), version.as_ref()).await?);
        let stored = store.load().await?.context("a checkpoint must be stored")?;
        ensure!(Some(&stored.version) == version.as_ref());
        ensure!(stored.data.len() > 8_000, "{} keys", stored.data.len());
        ensure!(
            Checkpoint::from_data(&stored.data)? == written,
            "the stored checkpoint must be the written one"
        );
    }
    let before = store.load().await?;
    // Over the limit of etcd, and over the limit of a ConfigMap.
    for shards in [5_500, 8_000] {
        let rejected = store.save(&checkpoint(shards, 4)?.to_data(), version.as_ref()).await;
        ensure!(matches!(rejected, Err(StoreError::TooLarge(_))), "{rejected:?}");
        ensure!(store.load().await? == before);
    }
    namespace.passed();
    Ok(())
}
