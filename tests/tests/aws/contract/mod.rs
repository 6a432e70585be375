//! Contract between the raw path and the SDK's clients of the pinned versions.
//!
//! PostToConnection and GetRecords bypass the SDK's clients. These tests send the same input through both
//! and compare the requests, then feed the same responses to both and compare the classification. An SDK
//! update that changes either fails a test. Each intended difference is listed with its reason.

mod delete_connection;
mod get_records;
mod post_to_connection;
mod requests;

use aws_sdk_dynamodbstreams::config::Credentials;
use stream_notifier::aws::AwsConfig;

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SESSION_TOKEN: &str = "FwoGZXIvYXdzEXAMPLE//////////wEaDA+/=";

/// Long-lived credentials, and those of a session.
fn all_credentials() -> [Credentials; 2] {
    let token = Some(SESSION_TOKEN.to_owned());
    [None, token].map(|token| Credentials::new(ACCESS_KEY, SECRET, token, None, "test"))
}

fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET, None, None, "test")
}

/// The operator's configuration for an endpoint of this machine.
async fn operator_config(endpoint: &str, credentials: &Credentials) -> AwsConfig {
    AwsConfig::fixed(endpoint, credentials.clone()).await
}
