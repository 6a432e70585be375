//! An emulated AWS that Pods of the cluster can reach, with the tables and the WebSocket API of the README.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use serde_json::{Value, json};
use stream_notifier_tests::ministack::MiniStack;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::web_socket_api::WebSocketApi;

use crate::release::WAIT_TIMEOUT;

const TABLE: &str = "sample-table-dev";
const CONNECTIONS: &str = "sample-connections-dev";
const PK: &str = "target_pk#fuga";

pub struct Aws {
    pub ministack: MiniStack,
    pub api: WebSocketApi,
    stream: String,
}

impl Aws {
    pub async fn start(address: IpAddr) -> Result<Self> {
        let ministack = MiniStack::start_on(address).await?;
        let view = StreamViewType::NewAndOldImages;
        let stream = ministack.create_table_with_stream(TABLE, view).await?;
        ministack.create_connections_table(CONNECTIONS).await?;
        let api = WebSocketApi::create(&ministack, "api", Some(CONNECTIONS)).await?;
        Ok(Self { ministack, api, stream })
    }

    /// The example notifier of the README, for this AWS.
    pub fn notifier(&self, name: &str) -> Value {
        json!({
            "apiVersion": "streamnotifier.dev/v1alpha1",
            "kind": "StreamNotifier",
            "metadata": {"name": name},
            "spec": {
                "streamArn": self.stream,
                "keyFilters": [
                    {"key": "PK", "contains": "target_pk"},
                    {"key": "SK", "contains": "target_sk"},
                ],
                "attribute": "TargetAttribute",
                "connections": {
                    "tableName": CONNECTIONS,
                    "indexName": "sk-index",
                    "partitionKey": "sk",
                    "value": "keys.SK.split('#')[1]",
                    "connectionIdAttribute": "connection_id",
                },
                "webSocket": {"domain": self.api.domain(), "stage": self.api.stage()},
                "message": {
                    "pk": "keys.PK.split('#')[1]",
                    "sk": "keys.SK.split('#')[1]",
                    "value": "string(new.TargetAttribute)",
                },
            },
        })
    }

    /// Sets the attribute of the item whose clients connected with `SK=<sk>`.
    pub async fn set(&self, sk: &str, value: usize) -> Result<()> {
        self.ministack
            .dynamodb()
            .update_item()
            .table_name(TABLE)
            .key("PK", AttributeValue::S(PK.into()))
            .key("SK", AttributeValue::S(format!("target_sk#{sk}")))
            .update_expression("SET TargetAttribute = :value")
            .expression_attribute_values(":value", AttributeValue::N(value.to_string()))
            .send()
            .await?;
        Ok(())
    }

    /// Waits until this number of connections is stored.
    pub async fn wait_connections(&self, count: i32) -> Result<()> {
        eventually(WAIT_TIMEOUT, format!("{count} connections"), async || {
            let rows = self.ministack.dynamodb().scan().table_name(CONNECTIONS).send().await?;
            ensure!(rows.count() == count, "{} connections are stored", rows.count());
            Ok(())
        })
        .await
    }

    /// Changes an item on which the expressions of the notifier fail.
    pub async fn set_invalid(&self, value: usize) -> Result<()> {
        self.ministack
            .dynamodb()
            .update_item()
            .table_name(TABLE)
            .key("PK", AttributeValue::S("target_pk".into()))
            .key("SK", AttributeValue::S("target_sk".into()))
            .update_expression("SET TargetAttribute = :value")
            .expression_attribute_values(":value", AttributeValue::N(value.to_string()))
            .send()
            .await?;
        Ok(())
    }
}
