//! ARNs of tables and queues. Checks every part that becomes part of a host name or a URL, even if the
//! CRD's schema has checked it.

use crate::rules::InvalidSpec;

/// The ARN of an SQS queue, and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueArn {
    /// `arn:aws:sqs:<region>:<account>:<name>`.
    pub arn: String,
    pub region: String,
    /// The URL of the queue.
    pub url: String,
}

/// The ARN of a table, and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableArn {
    /// `arn:aws:dynamodb:<region>:<account>:table/<table>`.
    pub arn: String,
    pub region: String,
    pub account: String,
}

impl TableArn {
    pub(crate) fn parse(arn: &str) -> Option<Self> {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        let ["arn", _, "dynamodb", region, account, resource] = parts[..] else {
            return None;
        };
        let name = resource.strip_prefix("table/")?;
        let is_named = ![region, account, name].contains(&"") && !name.contains('/');
        is_named.then(|| Self {
            arn: arn.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
        })
    }
}

/// Whether a text can be a region, which becomes part of a host name.
pub(crate) fn is_region(region: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !region.is_empty() && region.bytes().all(is_plain)
}

impl QueueArn {
    pub(crate) fn parse(arn: &str) -> Result<Self, InvalidSpec> {
        let parts: Vec<_> = arn.split(':').collect();
        let ["arn", partition, "sqs", region, account, name] = parts[..] else {
            let problem = "must be the ARN of an SQS queue, arn:aws:sqs:<region>:<account>:<queue>";
            return Err(invalid(problem));
        };
        // These become parts of a URL.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_account = account.bytes().all(|byte| byte.is_ascii_digit());
        if !is_region(region) || !is_account || name.is_empty() || !name.bytes().all(is_name) {
            let problem = "must be the ARN of an SQS queue, arn:aws:sqs:<region>:<account>:<queue>";
            return Err(invalid(problem));
        }
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(Self {
            arn: arn.to_owned(),
            region: region.to_owned(),
            url: format!("https://sqs.{region}.{domain}/{account}/{name}"),
        })
    }
}

fn invalid(problem: &str) -> InvalidSpec {
    InvalidSpec { field: "delivery.deadLetterQueueArn".to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_arn_of_a_queue() {
        let queue = QueueArn::parse("arn:aws:sqs:eu-west-1:123456789012:lost.fifo").unwrap();
        assert_eq!(queue.url, "https://sqs.eu-west-1.amazonaws.com/123456789012/lost.fifo");
        assert_eq!(queue.region, "eu-west-1");
        let queue = QueueArn::parse("arn:aws-cn:sqs:cn-north-1:123456789012:lost").unwrap();
        assert_eq!(queue.url, "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/lost");
        for other in [
            "lost",
            "arn:aws:sns:eu-west-1:123456789012:lost",
            "arn:aws:sqs:eu-west-1",
            "arn:aws:sqs:evil.com/x:123456789012:lost",
        ] {
            let error = QueueArn::parse(other).unwrap_err();
            assert_eq!(error.field, "delivery.deadLetterQueueArn", "{other}");
        }
    }
}
