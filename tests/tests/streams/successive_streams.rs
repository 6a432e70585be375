//! Streams of a table that follow one another. The worker drains each, then reads its successor.

use stream_notifier::streams::StreamErrorKind;
use stream_notifier_tests::streams_model::{Model, Request, Settings};

use super::fixture::{
    HOUR, clear_faults, fail_requests, gap_count, latest_label, model_worker, one_open_shard,
    one_shard, read_current_stream, read_table, received_values, replace_stream,
    stopped_after_start, write_value,
};

#[tokio::test(start_paused = true)]
async fn drains_a_disabled_stream_then_reads_its_successor_from_the_start() {
    let mut worker = model_worker(one_shard());
    write_value(&worker, 1);
    replace_stream(&worker).await;
    write_value(&worker, 2);
    worker.start_with(read_table);
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
    // The second stream is disabled while the worker reads it.
    write_value(&worker, 3);
    let before = worker.health().stream;
    worker.streams.with(Model::disable);
    worker.sleep_seconds(60).await;
    assert_eq!(worker.problem_reasons(), ["StreamDisabled"], "the drained stream has no successor");
    assert_eq!(received_values(&worker), [2, 3]);
    worker.streams.with(Model::enable);
    worker.sleep_seconds(30).await;
    write_value(&worker, 4);
    worker
        .wait_until("the client receives [2, 3, 4]", || received_values(&worker) == [2, 3, 4])
        .await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
    assert!(worker.health().stream > before, "{:?}", worker.health());
    assert_eq!(gap_count(&worker), 0);
}

#[tokio::test(start_paused = true)]
async fn reads_a_stream_that_was_created_and_disabled_during_downtime() {
    let mut worker = model_worker(one_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    for value in [2, 3] {
        write_value(&worker, value * 10);
        replace_stream(&worker).await;
        write_value(&worker, value * 10 + 1);
    }
    worker.start_with(read_table);
    worker
        .wait_until("the client receives 5 messages", || received_values(&worker).len() == 5)
        .await;
    assert_eq!(received_values(&worker), [1, 20, 21, 30, 31]);
    let labels = worker.streams.with(|model| model.list_streams().unwrap().len());
    assert_eq!(labels, 3);
}

#[tokio::test(start_paused = true)]
async fn names_but_does_not_read_the_successor_of_a_stream_arn() {
    let mut worker = model_worker(one_shard());
    let read_stream = read_current_stream(&worker);
    write_value(&worker, 1);
    worker.streams.with(Model::disable);
    worker.start_with(read_stream);
    worker
        .wait_until("StreamDisabled is reported", || worker.problem_reasons() == ["StreamDisabled"])
        .await;
    assert_eq!(received_values(&worker), [1]);
    worker.streams.with(Model::enable);
    worker.sleep_seconds(60).await;
    write_value(&worker, 2);
    worker.sleep_seconds(60).await;
    assert_eq!(worker.problem_reasons(), ["StreamReplaced"]);
    let successor = latest_label(&worker);
    let problem = worker.health().problems.into_values().next().unwrap();
    assert!(problem.message.contains(&successor), "{problem:?}");
    assert!(problem.stalled);
    assert_eq!(received_values(&worker), [1]);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_stream_of_a_table_without_one() {
    let mut worker = model_worker(one_shard());
    worker.streams.with(Model::disable);
    worker.sleep_seconds(25 * HOUR).await;
    worker.start_with(read_table);
    worker
        .wait_until("StreamDisabled is reported", || worker.problem_reasons() == ["StreamDisabled"])
        .await;
    worker.streams.with(Model::enable);
    worker.sleep_seconds(60).await;
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.wait_started().await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// The user enables another stream, as the condition says. Its records must be read within an hour.
#[tokio::test(start_paused = true)]
async fn reads_a_stream_whose_predecessor_has_an_unsupported_view_type() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.streams.with(Model::disable);
    worker.sleep_seconds(60).await;
    worker.streams.with(Model::enable);
    worker.streams.set_keys_only(Some(latest_label(&worker)));
    worker
        .wait_until("ViewTypeMismatch is reported", || {
            worker.problem_reasons() == ["ViewTypeMismatch"]
        })
        .await;
    replace_stream(&worker).await;
    write_value(&worker, 2);
    worker.sleep_seconds(HOUR).await;
    assert_eq!(received_values(&worker), [1, 2], "{:?}", worker.health());
}

/// The user repairs the checkpoint while the worker waits.
#[tokio::test(start_paused = true)]
async fn resumes_all_streams_from_a_repaired_checkpoint() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.sleep_seconds(10).await;
    worker.stop().await;
    write_value(&worker, 2);
    replace_stream(&worker).await;
    write_value(&worker, 3);
    let good = worker.store.checkpoint().unwrap();
    worker.store.corrupt();
    worker.start_with(read_table);
    worker
        .wait_until("CheckpointInvalid is reported", || {
            worker.problem_reasons() == ["CheckpointInvalid"]
        })
        .await;
    worker.store.write(&good);
    worker
        .wait_until("the client receives 3", || received_values(&worker).last() == Some(&3))
        .await;
    worker.sleep_seconds(HOUR).await;
    assert_eq!(
        (received_values(&worker), gap_count(&worker)),
        (vec![1, 2, 3], 0),
        "{:?}",
        worker.health()
    );
}

/// One shard is missing from the first listing, and the next listings fail.
#[tokio::test(start_paused = true)]
async fn ends_a_stream_only_after_a_later_listing_confirms_it() {
    let mut worker = stopped_after_start(one_open_shard()).await;
    write_value(&worker, 1);
    worker.streams.with(|model| model.roll(0));
    write_value(&worker, 2);
    let child = worker.streams.with(|model| model.shards().last().unwrap().id.clone());
    worker.streams.set_unlisted(Some(child));
    replace_stream(&worker).await;
    write_value(&worker, 3);
    worker.start_with(read_table);
    worker.sleep_seconds(5).await;
    assert_eq!(received_values(&worker), [1]);
    fail_requests(&worker, Request::Describe, StreamErrorKind::AccessDenied);
    worker.sleep_seconds(60).await;
    assert_eq!(received_values(&worker), [1], "the successor must wait for a complete listing");
    worker.streams.set_unlisted(None);
    clear_faults(&worker);
    worker
        .wait_until("the client receives 3 messages", || received_values(&worker).len() == 3)
        .await;
    assert_eq!(received_values(&worker), [1, 2, 3]);
}

/// No shard has a child, and each request for children lists all shards.
#[tokio::test(start_paused = true)]
async fn drains_a_stream_of_a_service_without_shard_filters() {
    let settings = Settings {
        shards: 40,
        shards_per_page: 1,
        supports_shard_filter: false,
        ..one_open_shard()
    };
    let mut worker = stopped_after_start(settings).await;
    replace_stream(&worker).await;
    write_value(&worker, 1);
    worker.start_with(read_table);
    worker.sleep_seconds(180).await;
    assert_eq!(received_values(&worker), [1], "the successor must be read");
}

/// The stream of a deleted table can be read for another 24 hours.
#[tokio::test(start_paused = true)]
async fn reads_the_remaining_records_of_a_deleted_table() {
    let mut worker = model_worker(one_open_shard());
    worker.start_and_wait(read_table).await;
    worker.stop().await;
    write_value(&worker, 1);
    worker.streams.with(|model| model.roll(0));
    write_value(&worker, 2);
    worker.streams.with(Model::disable);
    fail_requests(&worker, Request::Streams, StreamErrorKind::NotFound);
    worker.start_with(read_table);
    worker.sleep_seconds(60).await;
    assert_eq!(received_values(&worker), [1, 2], "{:?}", worker.problem_reasons());
    assert_eq!(worker.problem_reasons(), ["StreamDisabled"]);
}
