//! Implements the traits of `streams` and `delivery` with AWS. No other folder uses the AWS SDK.

pub mod attribute;
pub mod ca_bundle;
pub mod causes;
pub mod config;
pub mod connections;
pub mod credentials;
pub mod error;
pub mod gateway;
pub mod raw;
pub mod sqs;
pub mod streams;

pub use self::ca_bundle::CaBundleError;
pub use self::config::AwsConfig;
pub use self::connections::DynamoDbConnections;
pub use self::gateway::ApiGateway;
pub use self::sqs::SqsDeadLetterQueue;
pub use self::streams::DynamoDbStreams;
