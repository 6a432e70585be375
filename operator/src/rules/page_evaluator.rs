//! Evaluates a page of records in order, without delaying other notifiers.
//!
//! Cheap conditions are checked where the page was read. Patterns and expressions run in time slices
//! on the threads of the [`EvaluatorPool`](super::evaluator_pool::EvaluatorPool), because other teams write them and a single
//! record can cost tens of milliseconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tokio::time::Instant;

use super::compiled_spec::{CompiledSpec, Decision};
use super::evaluator_pool::EvaluatorHandle;
use crate::model::{KeySchema, Record, SequenceNumber, UnixSeconds};

/// A time slice ends after this long. The record that is being evaluated then is finished first.
const TIME_SLICE: Duration = Duration::from_millis(2);

/// Records that are evaluated in one time slice, at most.
const MAX_SLICE_RECORDS: usize = 256;

/// A time slice ends once its messages take this many bytes. Until they are queued, no other bound
/// holds for them.
const MAX_SLICE_BYTES: usize = 1 << 20;

/// Evaluates the pages of one notifier.
#[derive(Debug)]
pub struct PageEvaluator {
    spec: Arc<CompiledSpec>,
    evaluator: EvaluatorHandle,
    /// Older records were written before reading began, and are skipped.
    skip_before: Option<UnixSeconds>,
}

impl PageEvaluator {
    /// An evaluator that skips records older than `skip_before`.
    pub fn new(
        spec: Arc<CompiledSpec>,
        evaluator: EvaluatorHandle,
        skip_before: Option<UnixSeconds>,
    ) -> Self {
        Self { spec, evaluator, skip_before }
    }

    /// Begins with a page of records, whose table has these key attributes.
    pub fn begin(&self, records: Vec<Record>, keys: KeySchema) -> PageEvaluation<'_> {
        let (unread, pending) = (records.into_iter(), VecDeque::new());
        PageEvaluation { evaluator: self, keys, records: unread, pending }
    }
}

/// The evaluation of one page.
#[derive(Debug)]
pub struct PageEvaluation<'a> {
    evaluator: &'a PageEvaluator,
    keys: KeySchema,
    records: vec::IntoIter<Record>,
    /// Records that passed the prefilter or were skipped by it, and have no decision yet.
    pending: VecDeque<Step>,
}

/// A record that the prefilter has seen.
#[derive(Debug)]
enum Step {
    /// This record and those before it are skipped.
    Skipped(SequenceNumber),
    /// Patterns and expressions decide.
    Pending(Record),
}

/// What the prefilter found in its records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prefiltered {
    /// The last record of the page's skipped ones that come before all others.
    pub skipped_through: Option<SequenceNumber>,
    /// Records that are older than the start of reading.
    pub before_start: u64,
    /// Records that the cheap conditions skip.
    pub skipped: u64,
}

/// What one time slice decided.
#[derive(Debug)]
pub struct EvaluatedSlice {
    /// Each record with its decision, in order; `None` for a run of skipped records, whose last one
    /// this is.
    pub decisions: Vec<(SequenceNumber, Option<(Decision, Record)>)>,
    /// How long the evaluation took.
    pub elapsed: Duration,
    pending: VecDeque<Step>,
}

impl PageEvaluation<'_> {
    /// Checks cheap conditions until a time slice's worth of records is pending. Does nothing while
    /// some are.
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
                // The last one of a run stands for all of it.
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

    /// Waits for a time slice and evaluates at least one pending record in it; `None` if none is
    /// pending, which after [`Self::prefilter`] is the end of the page.
    pub async fn evaluate(&mut self) -> Option<EvaluatedSlice> {
        if self.pending.is_empty() {
            return None;
        }
        let (spec, keys) = (self.evaluator.spec.clone(), self.keys.clone());
        let pending = std::mem::take(&mut self.pending);
        let mut slice =
            self.evaluator.evaluator.run(move || evaluate_slice(&spec, &keys, pending)).await;
        self.pending = std::mem::take(&mut slice.pending);
        Some(slice)
    }
}

fn evaluate_slice(
    spec: &CompiledSpec,
    keys: &KeySchema,
    mut pending: VecDeque<Step>,
) -> EvaluatedSlice {
    let begun = Instant::now();
    let mut decisions = Vec::with_capacity(pending.len());
    let mut bytes = 0;
    while bytes < MAX_SLICE_BYTES
        && begun.elapsed() < TIME_SLICE
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
    EvaluatedSlice { decisions, elapsed: begun.elapsed(), pending }
}
