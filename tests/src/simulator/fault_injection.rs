//! Injects faults: crashes and pauses, outages that outlast iterators or records, and backends that
//! fail for a period.

use std::time::Duration;

use stream_notifier::delivery::{ConnectionsErrorKind, DeadLetterErrorKind};
use stream_notifier::streams::StreamErrorKind;
use tokio::time::sleep;

use super::faults::{StoreFault, Window};
use super::gateway::{NO_CREDENTIALS, UNREACHABLE};
use super::scenario::{MAX_CONNECTIONS, Scenario};
use super::step::Step;
use super::worker_process::{Call, CallSide, CrashPoint};

impl Scenario {
    pub(super) fn set_crash_point(&mut self) {
        let crash_point = self.draw_crash_point();
        self.with_worker(|worker| worker.process.set_crash_point(crash_point));
    }

    /// Draws a crash at any call, or at one kind. Rare calls are drawn more often than they happen.
    pub(super) fn draw_crash_point(&mut self) -> CrashPoint {
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
        let side = if rng.bool() { CallSide::Before } else { CallSide::After };
        let skipped_calls = rng.u32(..if call.is_none() { 40 } else { 2 });
        CrashPoint { call, side, skipped_calls }
    }

    /// Pauses a process. Another one may start meanwhile.
    pub(super) fn pause_process(&mut self) {
        let max_ms = [3_000, 20_000, 90_000][self.rng.usize(..3)];
        let resumes_at = self.now() + self.rng.u64(..max_ms);
        let (mut paused, world) = (None, self.world.clone());
        self.with_worker(|worker| {
            worker.pause(&world, true);
            paused = Some(worker.process.number);
        });
        self.resumptions.extend(paused.map(|process| (process, resumes_at)));
    }

    /// Pauses all processes for a long time.
    pub(super) async fn stop_clocks(&mut self) {
        for worker in &self.workers {
            worker.pause(&self.world, true);
        }
        self.pass_long_time().await;
        let now = self.now();
        self.resumptions = self.workers.iter().map(|worker| (worker.process.number, now)).collect();
    }

    /// Crashes all processes and starts none for a long time.
    pub(super) async fn crash_all(&mut self) {
        for worker in &self.workers {
            worker.kill();
        }
        self.pass_long_time().await;
    }

    /// Lets so much time pass that iterators expire, or records are trimmed. Writes continue.
    async fn pass_long_time(&mut self) {
        const MINUTE: u64 = 60_000;
        let (min, max, label) = match self.rng.u8(..4) {
            0 | 1 => (16 * MINUTE, 40 * MINUTE, "longer than an iterator lasts"),
            2 => (60 * MINUTE, 600 * MINUTE, "for hours"),
            _ => (24 * 60 * MINUTE, 30 * 60 * MINUTE, "longer than records are kept"),
        };
        self.world.count(label);
        let lasts_ms = self.rng.u64(min..max);
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
            sleep(Duration::from_millis(lasts_ms / parts)).await;
        }
    }

    /// Fails a backend for so long that messages expire, or iterators do.
    pub(super) async fn long_outage(&mut self) {
        // With a short poll interval, the run would take too long.
        if self.config.poll_interval < Duration::from_secs(2) {
            return;
        }
        let steps = [Step::StreamsDown, Step::ConnectionsDown, Step::GatewayDown];
        let step = steps[self.rng.usize(..steps.len())];
        let lasts_ms = match step {
            Step::GatewayDown => self.rng.u64(300_000..500_000),
            _ => self.rng.u64(900_000..1_200_000),
        };
        self.write(3).await;
        self.fail_backend(step, lasts_ms);
        // The dead letters of undelivered messages then fail too.
        if step == Step::GatewayDown && self.rng.bool() {
            self.fail_backend(Step::QueueDown, lasts_ms + 100_000);
        }
        self.write(3).await;
        sleep(Duration::from_millis(lasts_ms)).await;
    }

    /// Throttles so many connections at once that the account must be assumed to be throttled.
    pub(super) async fn throttle_account(&mut self) {
        while self.world.with(|_, state| state.connections.len()) < MAX_CONNECTIONS {
            self.connect(0);
        }
        self.sleep_up_to(1_000).await;
        let until = self.now() + self.rng.u64(1_000..60_000);
        self.world.with(|model, state| {
            state.faults.gateway = Window::new(429, until);
            state.history.end_holds(model.now());
        });
        self.write(3).await;
    }

    /// Fails a backend for a period.
    pub(super) fn fail_backend(&mut self, step: Step, lasts_ms: u64) {
        let until = self.now() + lasts_ms;
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
                    state.history.end_holds(model.now());
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
            let faults = format!("{:?}", state.faults);
            state.trace_line(model, || faults);
        });
    }
}
