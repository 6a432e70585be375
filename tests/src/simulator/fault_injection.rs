//! What is hard on workers: crashes and pauses, outages so long that iterators expire or records are
//! trimmed, and neighbours that fail for a while.

use std::time::Duration;

use stream_notifier::delivery::{ConnectionsErrorKind, DeadLetterErrorKind};
use stream_notifier::streams::StreamErrorKind;
use tokio::time::sleep;

use super::faults::{StoreFault, Window};
use super::gateway::{NO_CREDENTIALS, UNREACHABLE};
use super::scenario::{MOST_CONNECTIONS, Story};
use super::step::Step;
use super::worker_process::{Call, CrashPoint, When};

impl Story {
    /// A worker is to end at a call.
    pub(super) fn doom(&mut self) {
        let doom = self.draw_doom();
        self.with_worker(|worker| worker.life.doom(doom));
    }

    /// At any call, or at one of a kind: the rare ones more often than they happen.
    pub(super) fn draw_doom(&mut self) -> CrashPoint {
        let rng = &mut self.rng;
        let call = match rng.u8(..4) {
            0 => None,
            1 => {
                let rare = [
                    Call::DescribeTable,
                    Call::ListStreams,
                    Call::ListStreams,
                    Call::Disconnect,
                    Call::Disconnect,
                    Call::GetRow,
                    Call::DeleteRow,
                    Call::DeleteRow,
                ];
                Some(rare[rng.usize(..rare.len())])
            }
            _ => Some(Call::ALL[rng.usize(..Call::ALL.len())]),
        };
        let when = if rng.bool() { When::Before } else { When::After };
        let spared = rng.u32(..if call.is_none() { 40 } else { 2 });
        CrashPoint { call, when, spared }
    }

    /// A process stands still, and another one may be started meanwhile.
    pub(super) fn pause_one(&mut self) {
        let longest = [3_000, 20_000, 90_000][self.rng.usize(..3)];
        let goes_on = self.now() + self.rng.u64(..longest);
        let (mut paused, world) = (None, self.world.clone());
        self.with_worker(|worker| {
            worker.pause(&world, true);
            paused = Some(worker.life.number);
        });
        self.resumptions.extend(paused.map(|life| (life, goes_on)));
    }

    /// Every process stands still for long.
    pub(super) async fn freeze(&mut self) {
        for worker in &self.workers {
            worker.pause(&self.world, true);
        }
        self.long().await;
        let now = self.now();
        self.resumptions = self.workers.iter().map(|worker| (worker.life.number, now)).collect();
    }

    /// Nobody works for long.
    pub(super) async fn outage(&mut self) {
        for worker in &self.workers {
            worker.kill();
        }
        self.long().await;
    }

    /// So much time that iterators expire, or records are trimmed; changes go on.
    async fn long(&mut self) {
        const MINUTE: u64 = 60_000;
        let (least, most, what) = match self.rng.u8(..4) {
            0 | 1 => (16 * MINUTE, 40 * MINUTE, "longer than an iterator lasts"),
            2 => (60 * MINUTE, 600 * MINUTE, "for hours"),
            _ => (24 * 60 * MINUTE, 30 * 60 * MINUTE, "longer than records are kept"),
        };
        self.world.count(what);
        let lasts = self.rng.u64(least..most);
        let parts = self.rng.u64(1..=5);
        for _ in 0..parts {
            if self.rng.u8(..3) > 0 {
                self.write(3).await;
            }
            if self.rng.u8(..6) == 0 {
                self.world.with(|model, _| model.disable());
            } else if self.rng.u8(..3) == 0 {
                self.world.with(|model, _| model.enable());
            }
            sleep(Duration::from_millis(lasts / parts)).await;
        }
    }

    /// A neighbour fails for long, and everybody stays there.
    pub(super) async fn siege(&mut self) {
        // Where shards are asked four times a second, it would take too much of ours.
        if self.plan.poll_interval < Duration::from_secs(2) {
            return;
        }
        let neighbours = [Step::StreamsDown, Step::ConnectionsDown, Step::GatewayDown];
        let neighbour = neighbours[self.rng.usize(..neighbours.len())];
        let lasts = match neighbour {
            Step::GatewayDown => self.rng.u64(300_000..500_000),
            _ => self.rng.u64(900_000..1_200_000),
        };
        self.write(3).await;
        self.fail(neighbour, lasts);
        // What the gateway does not take is for the queue.
        if neighbour == Step::GatewayDown && self.rng.bool() {
            self.fail(Step::QueueDown, lasts + 100_000);
        }
        self.write(3).await;
        sleep(Duration::from_millis(lasts)).await;
    }

    /// So many connections are throttled at once that it is the account that is.
    pub(super) async fn throttle(&mut self) {
        while self.world.with(|_, state| state.connections.len()) < MOST_CONNECTIONS {
            self.connect(0);
        }
        self.pause(1_000).await;
        let until = self.now() + self.rng.u64(1_000..60_000);
        self.world.with(|_, state| state.faults.gateway = Window::new(429, until));
        self.write(3).await;
    }

    /// A neighbour fails for a while.
    pub(super) fn fail(&mut self, step: Step, lasts: u64) {
        let until = self.now() + lasts;
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let faults = &mut state.faults;
            match step {
                Step::StreamsDown => {
                    let kinds = [
                        StreamErrorKind::Unavailable,
                        StreamErrorKind::Throttled,
                        StreamErrorKind::AccessDenied,
                        StreamErrorKind::NoCredentials,
                    ];
                    faults.streams = Window::new(kinds[rng.usize(..kinds.len())], until);
                }
                Step::ConnectionsDown => {
                    let kinds = [
                        ConnectionsErrorKind::Unavailable,
                        ConnectionsErrorKind::Invalid,
                        ConnectionsErrorKind::NotFound,
                        ConnectionsErrorKind::AccessDenied,
                        ConnectionsErrorKind::NoCredentials,
                    ];
                    faults.connections = Window::new(kinds[rng.usize(..kinds.len())], until);
                }
                Step::GatewayDown => {
                    let statuses = [429, 500, 503, 403, UNREACHABLE, NO_CREDENTIALS];
                    let status = statuses[rng.usize(..statuses.len())];
                    faults.gateway = Window::new(status, until);
                    state.history.release(model.now());
                    if ![429, 500, 503].contains(&status) {
                        state.history.holds.push((model.now(), until));
                    }
                }
                Step::QueueDown => {
                    let kinds = [
                        DeadLetterErrorKind::Unavailable,
                        DeadLetterErrorKind::NotFound,
                        DeadLetterErrorKind::AccessDenied,
                    ];
                    faults.queue = Window::new(kinds[rng.usize(..kinds.len())], until);
                }
                _ => {
                    let kinds = [StoreFault::Unknown, StoreFault::AccessDenied];
                    faults.store = Window::new(kinds[rng.usize(..kinds.len())], until);
                }
            }
            let down = format!("{:?}", state.faults);
            state.note(model, || down);
        });
    }
}
