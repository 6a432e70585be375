//! Evaluates a page of records in order, without delaying other notifiers.
//!
//! Cheap conditions are checked in the task that reads the shard. Patterns and expressions run in
//! time slices on the threads of the [`EvaluatorPool`](super::evaluator_pool::EvaluatorPool),
//! because users write them and one record can take up to 70 ms.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tokio::time::Instant;

use super::compiled_spec::{CompiledSpec, Decision};
use super::evaluator_pool::EvaluatorHandle;
use crate::model::{KeySchema, Record, SequenceNumber, UnixSeconds};

/// The maximum length of a time slice. A record that is being evaluated at its end is finished.
const TIME_SLICE: Duration = Duration::from_millis(2);

/// The maximum number of records that are evaluated in one time slice.
const MAX_SLICE_RECORDS: usize = 256;

/// A time slice ends once its messages have this many bytes, because no other bound applies to
/// them until they are queued.
const MAX_SLICE_BYTES: usize = 1 << 20;

/// Evaluates the pages of one notifier.
#[derive(Debug)]
pub struct PageEvaluator {
    spec: Arc<CompiledSpec>,
    handle: EvaluatorHandle,
    /// The start of reading. Older records are skipped.
    skip_before: Option<UnixSeconds>,
}

impl PageEvaluator {
    /// An evaluator that skips records older than `skip_before`.
    pub fn new(
        spec: Arc<CompiledSpec>,
        handle: EvaluatorHandle,
        skip_before: Option<UnixSeconds>,
    ) -> Self {
        Self { spec, handle, skip_before }
    }

    /// Begins the evaluation of a page. `keys` are the key attributes of its table.
    pub fn begin(&self, records: Vec<Record>, keys: KeySchema) -> PageEvaluation<'_> {
        let (records, pending) = (records.into_iter(), VecDeque::new());
        PageEvaluation { evaluator: self, keys, records, pending }
    }
}

/// The evaluation of one page.
#[derive(Debug)]
pub struct PageEvaluation<'a> {
    evaluator: &'a PageEvaluator,
    keys: KeySchema,
    records: vec::IntoIter<Record>,
    /// Records that the prefilter has checked and that have no decision yet.
    pending: VecDeque<Step>,
}

/// A record, or a run of records, that the prefilter has checked.
#[derive(Debug)]
enum Step {
    /// A run of skipped records, by its last one.
    Skipped(SequenceNumber),
    /// A record on which patterns and expressions decide.
    Pending(Record),
}

/// The result of one run of the prefilter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prefiltered {
    /// The last record of the skipped records that precede all pending ones.
    pub skipped_through: Option<SequenceNumber>,
    /// The number of records that are older than the start of reading.
    pub before_start: u64,
    /// The number of records that the cheap conditions skip.
    pub skipped: u64,
}

/// The decisions of one time slice.
#[derive(Debug)]
pub struct EvaluatedSlice {
    /// Each record with its decision, in order. `None` means a run of skipped records, of which the
    /// sequence number is the last one.
    pub decisions: Vec<(SequenceNumber, Option<(Decision, Record)>)>,
    /// How long the evaluation took.
    pub elapsed: Duration,
    pending: VecDeque<Step>,
}

impl PageEvaluation<'_> {
    /// Checks cheap conditions until enough records for one time slice are pending. Does nothing
    /// while records are pending.
    pub fn prefilter(&mut self) -> Prefiltered {
        let mut prefiltered = Prefiltered::default();
        if !self.pending.is_empty() {
            return prefiltered;
        }
        let PageEvaluator { spec, skip_before, .. } = self.evaluator;
        let mut count = 0;
        for record in self.records.by_ref() {
            let is_kept = fault!(RecordsBeforeStartDelivered) && !record.old.is_empty();
            if skip_before.is_some_and(|start| record.approximate_creation_time < start) && !is_kept
            {
                prefiltered.before_start += 1;
            } else if spec.matches_prefilter(&record) {
                self.pending.push_back(Step::Pending(record));
                count += 1;
                if count == MAX_SLICE_RECORDS {
                    break;
                }
                continue;
            } else {
                prefiltered.skipped += 1;
            }
            let number = record.sequence_number;
            match self.pending.back_mut() {
                // The last record of a run represents the whole run.
                Some(Step::Skipped(last)) => *last = number,
                _ => self.pending.push_back(Step::Skipped(number)),
            }
        }
        if let Some(Step::Skipped(number)) =
            self.pending.pop_front_if(|step| matches!(step, Step::Skipped(_)))
        {
            prefiltered.skipped_through = Some(number);
        }
        prefiltered
    }

    /// Waits for a time slice and evaluates at least one pending record in it. Returns `None` if no
    /// record is pending, which after [`Self::prefilter`] means the end of the page.
    pub async fn evaluate(&mut self) -> Option<EvaluatedSlice> {
        if self.pending.is_empty() {
            return None;
        }
        let (spec, keys) = (self.evaluator.spec.clone(), self.keys.clone());
        let pending = std::mem::take(&mut self.pending);
        let mut slice =
            self.evaluator.handle.run(move || evaluate_slice(&spec, &keys, pending)).await;
        self.pending = std::mem::take(&mut slice.pending);
        Some(slice)
    }
}

fn evaluate_slice(
    spec: &CompiledSpec,
    keys: &KeySchema,
    mut pending: VecDeque<Step>,
) -> EvaluatedSlice {
    let started_at = Instant::now();
    let mut decisions = Vec::with_capacity(pending.len());
    let mut bytes = 0;
    while bytes < MAX_SLICE_BYTES
        && started_at.elapsed() < TIME_SLICE
        && let Some(step) = pending.pop_front()
    {
        match step {
            Step::Skipped(number) => decisions.push((number, None)),
            Step::Pending(record) => {
                let decision = spec.evaluate(keys, &record);
                if let Decision::Notify(notification) = &decision {
                    bytes += notification.body.len();
                }
                decisions.push((record.sequence_number.clone(), Some((decision, record))));
            }
        }
    }
    EvaluatedSlice { decisions, elapsed: started_at.elapsed(), pending }
}
