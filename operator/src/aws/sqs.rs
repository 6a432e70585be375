//! Implements the trait `DeadLetterQueue` with SQS.

use aws_sdk_sqs::Client;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::config::AwsConfig;
use super::error::dead_letter_error;
use crate::delivery::{DeadLetterError, DeadLetterQueue};

/// A dead-letter queue in SQS.
#[derive(Debug)]
pub struct SqsDeadLetterQueue {
    client: Client,
    arn: String,
    url: String,
}

impl SqsDeadLetterQueue {
    /// A client of the queue with this ARN and URL.
    pub fn new(aws: &AwsConfig, region: &str, arn: &str, url: &str) -> Self {
        let client = Client::new(&aws.in_region(region));
        Self { client, arn: arn.to_owned(), url: url.to_owned() }
    }
}

impl DeadLetterQueue for SqsDeadLetterQueue {
    fn arn(&self) -> &str {
        &self.arn
    }

    fn send<'a>(
        &'a self,
        dead_letter: &'a str,
        group: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        // Only a FIFO queue accepts a deduplication id, and keeps the order within a group.
        let is_fifo = self.url.ends_with(".fifo");
        let if_fifo = |text: &str| is_fifo.then(|| text.to_owned());
        let request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(dead_letter)
            .set_message_group_id(if_fifo(group))
            .set_message_deduplication_id(if_fifo(id));
        async { request.send().await.map(drop).map_err(dead_letter_error) }.boxed()
    }
}
