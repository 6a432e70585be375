//! Simulated process of a worker. It can be paused and resumed, and it can crash before or after
//! any of its calls. After a crash, no request of the process has an effect.

use std::fmt;
use std::future::pending;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A request of the worker to one of its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    ListStreams,
    DescribeStream,
    GetShardIterator,
    GetRecords,
    /// DescribeTable of the connections table.
    DescribeTable,
    /// Query of the connections table, for a lookup.
    Query,
    /// GetItem of a row, before its deletion.
    GetRow,
    /// DeleteItem of a row.
    DeleteRow,
    /// PostToConnection.
    Post,
    /// DeleteConnection.
    Disconnect,
    /// SendMessage to the dead-letter queue.
    SendDeadLetter,
    /// Load of the checkpoint.
    Load,
    /// Write of the checkpoint.
    Save,
}

impl Call {
    pub const ALL: [Self; 13] = [
        Self::ListStreams,
        Self::DescribeStream,
        Self::GetShardIterator,
        Self::GetRecords,
        Self::DescribeTable,
        Self::Query,
        Self::GetRow,
        Self::DeleteRow,
        Self::Post,
        Self::Disconnect,
        Self::SendDeadLetter,
        Self::Load,
        Self::Save,
    ];

    /// The count of crashes at this call.
    pub fn crash_label(self, side: CallSide) -> &'static str {
        match (self, side) {
            (Self::ListStreams, CallSide::Before) => "crash before ListStreams",
            (Self::ListStreams, CallSide::After) => "crash after ListStreams",
            (Self::DescribeStream, CallSide::Before) => "crash before DescribeStream",
            (Self::DescribeStream, CallSide::After) => "crash after DescribeStream",
            (Self::GetShardIterator, CallSide::Before) => "crash before GetShardIterator",
            (Self::GetShardIterator, CallSide::After) => "crash after GetShardIterator",
            (Self::GetRecords, CallSide::Before) => "crash before GetRecords",
            (Self::GetRecords, CallSide::After) => "crash after GetRecords",
            (Self::DescribeTable, CallSide::Before) => "crash before DescribeTable",
            (Self::DescribeTable, CallSide::After) => "crash after DescribeTable",
            (Self::Query, CallSide::Before) => "crash before a lookup",
            (Self::Query, CallSide::After) => "crash after a lookup",
            (Self::GetRow, CallSide::Before) => "crash before a row is read",
            (Self::GetRow, CallSide::After) => "crash after a row is read",
            (Self::DeleteRow, CallSide::Before) => "crash before a row's deletion",
            (Self::DeleteRow, CallSide::After) => "crash after a row's deletion",
            (Self::Post, CallSide::Before) => "crash before a post",
            (Self::Post, CallSide::After) => "crash after a post",
            (Self::Disconnect, CallSide::Before) => "crash before a disconnect",
            (Self::Disconnect, CallSide::After) => "crash after a disconnect",
            (Self::SendDeadLetter, CallSide::Before) => "crash before a dead letter",
            (Self::SendDeadLetter, CallSide::After) => "crash after a dead letter",
            (Self::Load, CallSide::Before) => "crash before a load",
            (Self::Load, CallSide::After) => "crash after a load",
            (Self::Save, CallSide::Before) => "crash before a save",
            (Self::Save, CallSide::After) => "crash after a save",
        }
    }
}

/// The side of a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSide {
    /// The call has had no effect yet.
    Before,
    /// The call has had its effect, but the worker has no response.
    After,
}

/// The call at which a process crashes.
#[derive(Clone, Copy, Debug)]
pub struct CrashPoint {
    /// `None` matches every call.
    pub call: Option<Call>,
    pub side: CallSide,
    /// Matching calls that complete before the crash.
    pub skipped_calls: u32,
}

/// One process of a worker, from its start to its exit or crash.
#[derive(Debug)]
pub struct WorkerProcess {
    /// Its index among all processes of the run.
    pub number: usize,
    state: Mutex<State>,
    resumed: Notify,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    crash_point: Option<CrashPoint>,
}

enum PassDecision {
    Proceed,
    Wait,
    Crash,
}

impl WorkerProcess {
    pub fn new(number: usize) -> Self {
        let (resumed, ended) = (Notify::new(), CancellationToken::new());
        Self { number, state: Mutex::default(), resumed, ended }
    }

    /// The holder that it writes into the checkpoint.
    pub fn holder(&self) -> String {
        format!("worker-{}", self.number)
    }

    pub fn end(&self) {
        self.ended.cancel();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    pub async fn wait_ended(&self) {
        self.ended.cancelled().await;
    }

    pub fn set_crash_point(&self, crash_point: CrashPoint) {
        self.state.lock().unwrap().crash_point = Some(crash_point);
    }

    pub fn clear_crash_point(&self) {
        self.state.lock().unwrap().crash_point = None;
    }

    pub fn pause(&self, is_paused: bool) {
        self.state.lock().unwrap().is_paused = is_paused;
        self.resumed.notify_waiters();
    }

    pub fn is_paused(&self) -> bool {
        self.state.lock().unwrap().is_paused
    }

    /// Passes one side of a call. Waits while the process is paused, and never returns after its
    /// end. Calls `on_crash` if the process crashes here.
    pub async fn pass(&self, call: Call, side: CallSide, on_crash: impl FnOnce()) {
        let mut on_crash = Some(on_crash);
        loop {
            // Registered before the check, so that a resume in between is not missed.
            let resumed = self.resumed.notified();
            match self.decide(call, side) {
                PassDecision::Proceed => return,
                PassDecision::Wait => resumed.await,
                PassDecision::Crash => {
                    if let Some(on_crash) = on_crash.take().filter(|_| !self.has_ended()) {
                        on_crash();
                    }
                    self.end();
                    pending::<()>().await;
                }
            }
        }
    }

    fn decide(&self, call: Call, side: CallSide) -> PassDecision {
        let mut state = self.state.lock().unwrap();
        if self.has_ended() {
            return PassDecision::Crash;
        }
        if state.is_paused {
            return PassDecision::Wait;
        }
        let Some(point) = &mut state.crash_point else { return PassDecision::Proceed };
        if point.side != side || point.call.is_some_and(|at| at != call) {
            return PassDecision::Proceed;
        }
        if point.skipped_calls > 0 {
            point.skipped_calls -= 1;
            return PassDecision::Proceed;
        }
        PassDecision::Crash
    }
}

impl fmt::Display for WorkerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.number)
    }
}
