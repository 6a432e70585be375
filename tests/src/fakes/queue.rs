//! Fake dead-letter queue with scripted errors.

use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use stream_notifier::delivery::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};

pub const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:lost";

/// A queue that accepts every dead letter, unless a test sets an error.
#[derive(Debug, Default)]
pub struct FakeQueue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    dead_letters: Vec<Value>,
    error: Option<DeadLetterErrorKind>,
    max_bytes: Option<usize>,
    attempts: usize,
}

impl FakeQueue {
    /// All dead letters, in order.
    pub fn dead_letters(&self) -> Vec<Value> {
        self.0.lock().unwrap().dead_letters.clone()
    }

    /// The number of sends.
    pub fn attempts(&self) -> usize {
        self.0.lock().unwrap().attempts
    }

    /// Sets the error of every send.
    pub fn set_error(&self, kind: Option<DeadLetterErrorKind>) {
        self.0.lock().unwrap().error = kind;
    }

    /// Rejects dead letters with more bytes from now on.
    pub fn set_max_bytes(&self, bytes: usize) {
        self.0.lock().unwrap().max_bytes = Some(bytes);
    }
}

impl DeadLetterQueue for FakeQueue {
    fn arn(&self) -> &str {
        QUEUE
    }

    fn send<'a>(
        &'a self,
        dead_letter: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        async {
            let mut state = self.0.lock().unwrap();
            state.attempts += 1;
            let is_too_long = state.max_bytes.is_some_and(|max| dead_letter.len() > max);
            let error = state.error.or(is_too_long.then_some(DeadLetterErrorKind::TooLarge));
            if let Some(kind) = error {
                return Err(DeadLetterError { kind, source: None });
            }
            state.dead_letters.push(serde_json::from_str(dead_letter).unwrap());
            Ok(())
        }
        .boxed()
    }
}
