//! Posts and their responses, as they are visible outside of the worker.
//!
//! The drop invariants evaluate them. Nothing here is read from the worker's own state, and each
//! threshold is one that `docs/architecture.md` states, under "Queues" or "Concurrency and rates".

use std::collections::BTreeSet;

use stream_notifier::delivery::{DeliveryPolicy, PostResponse, SlowClientAction};

use super::gateway::Post;
use super::world::State;
use crate::streams_model::Model;

/// A connection is unresponsive for this long after a post to it failed.
const UNRESPONSIVE_AFTER_FAILURE_MS: u64 = 10_000;

/// A connection whose posts all take less than this is responsive, however fast others are.
const RESPONSIVE_LATENCY_MS: u64 = 250;

/// A connection is unresponsive while a post to it has taken this long.
const HIGH_LATENCY_MS: u64 = 1_000;

/// The account is assumed to be throttled if this many connections, and this part of all responses,
/// are throttled within this window.
const ACCOUNT_MIN_CONNECTIONS: usize = 5;
const ACCOUNT_RESPONSES_PER_THROTTLED: usize = 10;
const ACCOUNT_WINDOW_MS: u64 = 1_000;

/// A throttled connection is remembered for this long. Until then it may not count again.
const THROTTLED_CONNECTION_TTL_MS: u64 = 60_000;

/// The operator posts to a closed connection again after 1, 2 and 4 s.
const MAX_CLOSED_RETRY_DELAY_MS: u64 = 4_000;

/// A slow client is disconnected at this many consecutive 429 responses.
const DISCONNECT_AFTER_429S: u32 = 3;

/// The posts of one claim to one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionHistory {
    last_failure_at: Option<u64>,
    last_response_at: u64,
    is_last_response_closed: bool,
    /// Whether a post was slow, or a disconnect began, since the queue was last empty for certain.
    was_slow: bool,
    /// 429 responses since the last 200 or 410. Only the first one may be due to account
    /// throttling.
    pub consecutive_429s: u32,
    /// Messages that the claim had delivered to all connections at the first of them.
    pub delivered_before_429s: u64,
}

impl ConnectionHistory {
    /// Whether the operator may still post again, to find out whether the connection is closed.
    pub fn is_retried_as_closed(&self, now: u64) -> bool {
        self.is_last_response_closed && now - self.last_response_at <= MAX_CLOSED_RETRY_DELAY_MS
    }

    /// Whether the policy lets the worker disconnect the client, if others receive messages
    /// meanwhile.
    pub fn may_be_disconnected(&self, policy: &DeliveryPolicy) -> bool {
        policy.slow_client == SlowClientAction::Disconnect
            && self.consecutive_429s >= DISCONNECT_AFTER_429S
    }

    /// Records that the worker gave up a post, or that one failed.
    pub fn record_failure(&mut self, now: u64) {
        self.last_failure_at = Some(now);
    }

    /// Whether the operator may drop messages of the connection when its queue is full.
    pub fn is_unresponsive(&self, post_started_at: Option<u64>, now: u64) -> bool {
        let failed = |at: u64| now <= at + UNRESPONSIVE_AFTER_FAILURE_MS;
        let is_slow = |started: u64| now >= started + HIGH_LATENCY_MS;
        self.was_slow
            || self.last_failure_at.is_some_and(failed)
            || post_started_at.is_some_and(is_slow)
    }
}

/// The responses that one process has received.
#[derive(Debug, Default)]
pub struct EndpointHistory {
    /// Whether the last response that depends on permissions and endpoint was a rejection.
    pub rejects_posts: bool,
    /// The responses of the last two windows: the time, and the connection if it was throttled.
    recent: Vec<(u64, Option<usize>)>,
    /// The last time at which each connection was throttled.
    throttled_at: Vec<(usize, u64)>,
    streak: Option<ThrottleStreak>,
}

/// A period in which every response is a 429.
#[derive(Debug)]
struct ThrottleStreak {
    /// Connections that were throttled shortly before it. They may not count.
    remembered: BTreeSet<usize>,
    is_account_throttled: bool,
}

impl EndpointHistory {
    /// Records a response. Returns whether it is certainly a 429 of a throttled account.
    ///
    /// The contract leaves open when a window begins. If twice the connections less one are
    /// throttled within one window's length, any alignment has a window with enough of them.
    fn record(&mut self, connection: usize, is_throttled: bool, now: u64) -> bool {
        self.recent.retain(|(at, _)| at + 2 * ACCOUNT_WINDOW_MS > now);
        self.recent.push((now, is_throttled.then_some(connection)));
        if !is_throttled {
            self.streak = None;
            return false;
        }
        let streak = self.streak.get_or_insert_with(|| {
            let is_kept = |at: u64| now <= at + THROTTLED_CONNECTION_TTL_MS;
            let kept = self.throttled_at.iter().filter(|(_, at)| is_kept(*at));
            ThrottleStreak {
                remembered: kept.map(|(connection, _)| *connection).collect(),
                is_account_throttled: false,
            }
        });
        self.throttled_at.retain(|(other, _)| *other != connection);
        self.throttled_at.push((connection, now));
        let in_window = self.recent.iter().filter(|(at, _)| at + ACCOUNT_WINDOW_MS > now);
        let throttled: BTreeSet<_> = in_window.filter_map(|(_, connection)| *connection).collect();
        let counted = throttled.difference(&streak.remembered).count();
        let max_responses = ACCOUNT_MIN_CONNECTIONS * ACCOUNT_RESPONSES_PER_THROTTLED;
        streak.is_account_throttled |=
            counted >= 2 * ACCOUNT_MIN_CONNECTIONS - 1 && self.recent.len() <= max_responses;
        streak.is_account_throttled
    }
}

impl State {
    /// Records the response to a post that the worker started at `started_at`.
    pub fn record_response(
        &mut self,
        model: &Model,
        process: usize,
        post: Post,
        started_at: u64,
        response: &PostResponse,
    ) {
        let (Post { claim: index, connection, record }, now) = (post, model.now());
        let endpoint = &mut self.history.processes[process].endpoint;
        let claim = &mut self.history.claims[index];
        claim.posts_in_flight.remove(&connection);
        let history = claim.connections.entry(connection).or_default();
        let status = match response {
            PostResponse::Status { status, .. } => Some(*status),
            PostResponse::NoResponse => None,
            _ => Some(0),
        };
        let is_account_throttled = endpoint.record(connection, status == Some(429), now);
        if is_account_throttled {
            self.counts.add("account throttled");
        }
        history.was_slow |= now >= started_at + RESPONSIVE_LATENCY_MS;
        history.last_response_at = now;
        history.is_last_response_closed = status == Some(410);
        match status {
            Some(200) => {
                history.consecutive_429s = 0;
                claim.delivered += 1;
                endpoint.rejects_posts = false;
            }
            Some(410) => {
                history.consecutive_429s = 0;
                history.record_failure(now);
                endpoint.rejects_posts = false;
            }
            Some(429) => {
                if history.consecutive_429s == 0 {
                    history.delivered_before_429s = claim.delivered;
                }
                history.consecutive_429s =
                    if is_account_throttled { 1 } else { history.consecutive_429s + 1 };
                history.record_failure(now);
                // The worker reads the row, and waits for its rate limits, before it disconnects.
                history.was_slow |= history.may_be_disconnected(&self.policy);
                *claim.failed_attempts.entry((record, connection)).or_default() +=
                    u32::from(!is_account_throttled);
            }
            None | Some(500..=599) => {
                history.record_failure(now);
                *claim.failed_attempts.entry((record, connection)).or_default() += 1;
            }
            Some(_) => endpoint.rejects_posts = true,
        }
        self.forget_latency_if_queue_is_empty(model, index, connection);
    }

    /// Records the response to a disconnect. Until then its connection has the failed post in
    /// flight.
    pub fn record_disconnect_response(
        &mut self,
        model: &Model,
        process: usize,
        connection: usize,
        response: &PostResponse,
    ) {
        let Some(claim) = self.history.processes[process].claim else { return };
        let claim = &mut self.history.claims[claim];
        claim.connections.entry(connection).or_default().record_failure(model.now());
        if matches!(response, PostResponse::Status { status: 200 | 204 | 410, .. }) {
            claim.disconnected.insert(connection);
        }
    }

    /// A queue exists only while it holds messages, and remembers latencies only while it exists.
    pub fn forget_latency_if_queue_is_empty(
        &mut self,
        model: &Model,
        claim: usize,
        connection: usize,
    ) {
        let was_slow = |state: &Self| {
            let history = state.history.claims[claim].connections.get(&connection);
            history.is_some_and(|history| history.was_slow)
        };
        if was_slow(self)
            && self.max_queued(model, &self.history.claims[claim], connection) == 0
            && let Some(history) = self.history.claims[claim].connections.get_mut(&connection)
        {
            history.was_slow = false;
        }
    }
}
