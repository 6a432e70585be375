//! A dead-letter queue that a test can break; every letter that it takes is kept.

use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use stream_notifier::delivery::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};

/// The ARN of the scripted queue.
pub const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:lost";

/// A queue that takes everything unless told otherwise.
#[derive(Debug, Default)]
pub struct FakeQueue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    letters: Vec<Value>,
    fails: Option<DeadLetterErrorKind>,
    longest: Option<usize>,
    tries: usize,
}

impl FakeQueue {
    /// Every letter, in the order in which they came.
    pub fn letters(&self) -> Vec<Value> {
        self.0.lock().unwrap().letters.clone()
    }

    /// How often one was sent.
    pub fn tries(&self) -> usize {
        self.0.lock().unwrap().tries
    }

    /// From now on every letter fails so, or none.
    pub fn fail(&self, kind: Option<DeadLetterErrorKind>) {
        self.0.lock().unwrap().fails = kind;
    }

    /// From now on letters have at most so many bytes.
    pub fn take_at_most(&self, bytes: usize) {
        self.0.lock().unwrap().longest = Some(bytes);
    }
}

impl DeadLetterQueue for FakeQueue {
    fn arn(&self) -> &str {
        QUEUE
    }

    fn send<'a>(
        &'a self,
        letter: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        async {
            let mut state = self.0.lock().unwrap();
            state.tries += 1;
            let is_too_long = state.longest.is_some_and(|longest| letter.len() > longest);
            let fails = state.fails.or(is_too_long.then_some(DeadLetterErrorKind::TooLarge));
            if let Some(kind) = fails {
                return Err(DeadLetterError { kind, source: None });
            }
            state.letters.push(serde_json::from_str(letter).unwrap());
            Ok(())
        }
        .boxed()
    }
}
