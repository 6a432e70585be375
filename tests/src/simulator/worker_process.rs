//! One life of the worker's process. It can be paused and go on later, and it can end at any call,
//! before or after what the call does; from then on nothing that it asks for happens.

use std::fmt;
use std::future::pending;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a worker asks of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// ListStreams.
    ListStreams,
    /// DescribeStream.
    DescribeStream,
    /// GetShardIterator.
    GetShardIterator,
    /// GetRecords.
    GetRecords,
    /// The connections table's description.
    DescribeTable,
    /// A lookup.
    Query,
    /// A row, read before its deletion.
    GetRow,
    /// A row's deletion.
    DeleteRow,
    /// A post.
    Post,
    /// A connection, closed.
    Disconnect,
    /// A dead letter.
    SendLetter,
    /// Loading the checkpoint.
    Load,
    /// Saving it.
    Save,
}

impl Call {
    /// Every call.
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
        Self::SendLetter,
        Self::Load,
        Self::Save,
    ];

    /// What a crash at it is counted as.
    pub fn crash(self, when: When) -> &'static str {
        match (self, when) {
            (Self::ListStreams, When::Before) => "crash before ListStreams",
            (Self::ListStreams, When::After) => "crash after ListStreams",
            (Self::DescribeStream, When::Before) => "crash before DescribeStream",
            (Self::DescribeStream, When::After) => "crash after DescribeStream",
            (Self::GetShardIterator, When::Before) => "crash before GetShardIterator",
            (Self::GetShardIterator, When::After) => "crash after GetShardIterator",
            (Self::GetRecords, When::Before) => "crash before GetRecords",
            (Self::GetRecords, When::After) => "crash after GetRecords",
            (Self::DescribeTable, When::Before) => "crash before DescribeTable",
            (Self::DescribeTable, When::After) => "crash after DescribeTable",
            (Self::Query, When::Before) => "crash before a lookup",
            (Self::Query, When::After) => "crash after a lookup",
            (Self::GetRow, When::Before) => "crash before a row is read again",
            (Self::GetRow, When::After) => "crash after a row is read again",
            (Self::DeleteRow, When::Before) => "crash before a row's deletion",
            (Self::DeleteRow, When::After) => "crash after a row's deletion",
            (Self::Post, When::Before) => "crash before a post",
            (Self::Post, When::After) => "crash after a post",
            (Self::Disconnect, When::Before) => "crash before a disconnection",
            (Self::Disconnect, When::After) => "crash after a disconnection",
            (Self::SendLetter, When::Before) => "crash before a dead letter",
            (Self::SendLetter, When::After) => "crash after a dead letter",
            (Self::Load, When::Before) => "crash before a load",
            (Self::Load, When::After) => "crash after a load",
            (Self::Save, When::Before) => "crash before a save",
            (Self::Save, When::After) => "crash after a save",
        }
    }
}

/// On which side of what a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing has happened yet.
    Before,
    /// It has happened, and nobody was told.
    After,
}

/// A life that is to end at a call.
#[derive(Clone, Copy, Debug)]
pub struct CrashPoint {
    /// At which one; `None`: at any.
    pub call: Option<Call>,
    /// On which side of it.
    pub when: When,
    /// How many of them it outlives.
    pub spared: u32,
}

/// One life.
#[derive(Debug)]
pub struct Life {
    /// Its place among all lives of the run.
    pub number: usize,
    state: Mutex<State>,
    resumed: Notify,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    doom: Option<CrashPoint>,
}

/// What becomes of a call.
enum Passing {
    Goes,
    Waits,
    Ends,
}

impl Life {
    /// A life that has just begun.
    pub fn new(number: usize) -> Self {
        let (resumed, ended) = (Notify::new(), CancellationToken::new());
        Self { number, state: Mutex::default(), resumed, ended }
    }

    /// Who holds the checkpoint in this life.
    pub fn holder(&self) -> String {
        format!("worker-{}", self.number)
    }

    /// Ends it, now.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it has ended.
    pub async fn until_ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends it at a call.
    pub fn doom(&self, doom: CrashPoint) {
        self.state.lock().unwrap().doom = Some(doom);
    }

    /// It is not to end at a call any more.
    pub fn spare(&self) {
        self.state.lock().unwrap().doom = None;
    }

    /// Stops it in its tracks, or lets it go on.
    pub fn pause(&self, is_paused: bool) {
        self.state.lock().unwrap().is_paused = is_paused;
        self.resumed.notify_waiters();
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.state.lock().unwrap().is_paused
    }

    /// Passes one side of a call: not while it is paused, never once it has ended. `crashed` is told
    /// if it ends here.
    pub async fn pass(&self, call: Call, when: When, crashed: impl FnOnce()) {
        let mut crashed = Some(crashed);
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let resumed = self.resumed.notified();
            match self.passing(call, when) {
                Passing::Goes => return,
                Passing::Waits => resumed.await,
                Passing::Ends => {
                    if let Some(crashed) = crashed.take().filter(|_| !self.has_ended()) {
                        crashed();
                    }
                    self.end();
                    pending::<()>().await;
                }
            }
        }
    }

    fn passing(&self, call: Call, when: When) -> Passing {
        let mut state = self.state.lock().unwrap();
        if self.has_ended() {
            return Passing::Ends;
        }
        if state.is_paused {
            return Passing::Waits;
        }
        let Some(doom) = &mut state.doom else { return Passing::Goes };
        if doom.when != when || doom.call.is_some_and(|doomed| doomed != call) {
            return Passing::Goes;
        }
        if doom.spared > 0 {
            doom.spared -= 1;
            return Passing::Goes;
        }
        Passing::Ends
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.number)
    }
}
