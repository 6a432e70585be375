//! An SQS queue behind the trait `DeadLetterQueue`.

use aws_sdk_sqs::Client;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::config::AwsConfig;
use super::error;
use crate::delivery::{DeadLetterError, DeadLetterQueue};

/// One queue.
#[derive(Debug)]
pub struct SqsDeadLetterQueue {
    client: Client,
    arn: String,
    url: String,
}

impl SqsDeadLetterQueue {
    /// The queue of this ARN and URL, in this region.
    pub fn new(aws: &AwsConfig, region: &str, arn: &str, url: &str) -> Self {
        let client = Client::new(&aws.region(region));
        Self { client, arn: arn.to_owned(), url: url.to_owned() }
    }
}

impl DeadLetterQueue for SqsDeadLetterQueue {
    fn arn(&self) -> &str {
        &self.arn
    }

    fn send<'a>(
        &'a self,
        letter: &'a str,
        group: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        // Only a queue that keeps order takes these.
        let fifo = self.url.ends_with(".fifo");
        let only = |text: &str| fifo.then(|| text.to_owned());
        let send = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(letter)
            .set_message_group_id(only(group))
            .set_message_deduplication_id(only(id))
            .send();
        async { send.await.map(drop).map_err(error::dead_letter) }.boxed()
    }
}
