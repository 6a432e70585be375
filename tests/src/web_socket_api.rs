//! A WebSocket API on MiniStack, whose connections are stored as the operator's users store them,
//! or are left for the test to store.

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

const LIMIT: Duration = Duration::from_secs(60);

/// The Lambda function behind all routes.
const FUNCTION: &str = include_str!("web_socket_api.py");

pub struct WebSocketApi {
    id: String,
    stage: String,
    endpoint: String,
}

impl WebSocketApi {
    /// With a table, `$connect` stores a row there (`connection_id`, `sk` of the query's `SK`,
    /// `created_at`), and `$disconnect` deletes it. Without one both only succeed.
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

    /// What a manifest names: the API's domain on AWS.
    pub fn domain(&self) -> String {
        format!("{}.execute-api.{REGION}.amazonaws.com", self.id)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.gateway_url().replacen("http:", "ws:", 1)
    }

    /// Where `/@connections/<id>` is.
    pub fn gateway_url(&self) -> String {
        gateway_endpoint(&self.endpoint)
            .replace("{apiId}", &self.id)
            .replace("{stage}", &self.stage)
    }

    /// Connects a client, with a query such as `SK=hoge`, and learns its connection id, by asking
    /// the function of the `$default` route for it.
    pub async fn connect(&self, query: &str) -> Result<WebSocketClient> {
        let mut client = WebSocketClient::connect(&format!("{}?{query}", self.url())).await?;
        client.send("who am I?").await?;
        // A notification may come in first, where the row is stored already.
        let answer = |text: &str| {
            let answer: Value = serde_json::from_str(text).ok()?;
            Some(answer.get("yourConnectionId")?.as_str()?.to_owned())
        };
        client
            .wait_until(LIMIT, "its connection id", |messages| {
                messages.iter().any(|message| answer(&message.text).is_some())
            })
            .await?;
        let id = client.take(answer).context("the connection id went missing")?;
        client.set_connection_id(id);
        Ok(client)
    }
}

/// `--gateway-endpoint` for MiniStack, or for a proxy before it.
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

/// A ZIP file with this as `index.py`: Lambda takes nothing else, and Python is there to make it.
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
    http::send(request, LIMIT).await?.success()?.json()
}

fn string(answer: &Value, field: &str) -> Result<String> {
    let text = answer[field].as_str().with_context(|| format!("no {field} in {answer}"))?;
    Ok(text.to_owned())
}
