//! Creates a WebSocket API on MiniStack. Its routes store and delete connection rows as those of a
//! user do, or leave them to the test.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::ministack::{ACCOUNT, MiniStack, REGION, authorization};
use crate::tools::tool;
use crate::websocket::WebSocketClient;
use crate::{command, http};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Lambda function of all routes.
const FUNCTION: &str = include_str!("web_socket_api.py");

pub struct WebSocketApi {
    id: String,
    stage: String,
    endpoint: String,
}

impl WebSocketApi {
    /// Creates an API. With a table, `$connect` stores a row (`connection_id`, `sk` from the query
    /// `SK`,
    /// `created_at`) and `$disconnect` deletes it. Without one, they do nothing.
    pub async fn create(
        ministack: &MiniStack,
        stage: &str,
        connections_table: Option<&str>,
    ) -> Result<Self> {
        let endpoint = ministack.endpoint();
        let api = create(
            endpoint,
            "/v2/apis",
            &json!({
                "name": stage,
                "protocolType": "WEBSOCKET",
                "routeSelectionExpression": "$request.body.action",
            }),
        )
        .await?;
        let id = string(&api, "apiId")?;

        let function = create_function(endpoint, &id, connections_table).await?;
        let path = format!("/v2/apis/{id}");
        let uri = format!(
            "arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function}/invocations"
        );
        let integration = create(
            endpoint,
            &format!("{path}/integrations"),
            &json!({"integrationType": "AWS_PROXY", "integrationUri": uri}),
        )
        .await?;
        let target = format!("integrations/{}", string(&integration, "integrationId")?);
        for route in ["$connect", "$disconnect", "$default"] {
            let body = json!({"routeKey": route, "target": target});
            create(endpoint, &format!("{path}/routes"), &body).await?;
        }
        let body = json!({"stageName": stage, "autoDeploy": true});
        create(endpoint, &format!("{path}/stages"), &body).await?;
        Ok(Self { id, stage: stage.into(), endpoint: endpoint.into() })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// The API's domain on AWS, for `webSocket.domain`.
    pub fn domain(&self) -> String {
        format!("{}.execute-api.{REGION}.amazonaws.com", self.id)
    }

    /// The URL to which clients connect.
    pub fn url(&self) -> String {
        self.gateway_url().replacen("http:", "ws:", 1)
    }

    /// The URL that has `/@connections/<id>`.
    pub fn gateway_url(&self) -> String {
        gateway_endpoint(&self.endpoint)
            .replace("{apiId}", &self.id)
            .replace("{stage}", &self.stage)
    }

    /// Connects a client with a query such as `SK=hoge`, and requests its connection id from the
    /// `$default` route.
    pub async fn connect(&self, query: &str) -> Result<WebSocketClient> {
        let mut client = WebSocketClient::connect(&format!("{}?{query}", self.url())).await?;
        client.send("connection id?").await?;
        // A notification can arrive first, if the row is stored already.
        let parse = |text: &str| {
            let response: Value = serde_json::from_str(text).ok()?;
            Some(response.get("yourConnectionId")?.as_str()?.to_owned())
        };
        client
            .wait_until(TIMEOUT, "its connection id", |messages| {
                messages.iter().any(|message| parse(&message.text).is_some())
            })
            .await?;
        let id = client.take(parse).context("no connection id was received")?;
        client.set_connection_id(id);
        Ok(client)
    }
}

/// The value of `--gateway-endpoint` for MiniStack, or for a proxy.
pub fn gateway_endpoint(endpoint: &str) -> String {
    format!("{endpoint}/_aws/execute-api/{{apiId}}/{{stage}}")
}

async fn create_function(endpoint: &str, name: &str, table: Option<&str>) -> Result<String> {
    let function = create(
        endpoint,
        "/2015-03-31/functions",
        &json!({
            "FunctionName": format!("connections-{name}"),
            "Runtime": "python3.12",
            "Role": format!("arn:aws:iam::{ACCOUNT}:role/connections"),
            "Handler": "index.handler",
            "Code": {"ZipFile": STANDARD.encode(zip(FUNCTION).await?)},
            "Environment": {"Variables": {"CONNECTIONS_TABLE": table.unwrap_or_default()}},
        }),
    )
    .await?;
    string(&function, "FunctionArn")
}

/// Creates a ZIP file with this code as `index.py`, the only format that Lambda accepts here.
async fn zip(code: &str) -> Result<Vec<u8>> {
    const SCRIPT: &str = "import sys, zipfile
with zipfile.ZipFile(sys.stdout.buffer, 'w') as archive:
    archive.writestr('index.py', sys.argv[1])";
    let mut python = Command::new(tool("ministack").await?);
    python.args(["-c", SCRIPT, code]);
    let output = command::output(python, "").await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

async fn create(endpoint: &str, path: &str, body: &Value) -> Result<Value> {
    let service = if path.starts_with("/v2/") { "apigateway" } else { "lambda" };
    let request = Request::post(format!("{endpoint}{path}"))
        .header(header::AUTHORIZATION, authorization(service))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))?;
    http::send(request, TIMEOUT).await?.success()?.json()
}

fn string(response: &Value, field: &str) -> Result<String> {
    let text = response[field].as_str().with_context(|| format!("no {field} in {response}"))?;
    Ok(text.to_owned())
}
