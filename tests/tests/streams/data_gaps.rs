//! Records that were lost before the worker read them.
//!
//! The worker reports every gap and its length, and never reports one if no record was lost.

use stream_notifier::delivery::ConnectionsErrorKind;
use stream_notifier::streams::{InitialPosition, IteratorStart, StreamErrorKind};
use stream_notifier::telemetry::Phase;
use stream_notifier_tests::fakes::new_record;
use stream_notifier_tests::streams_model::{Model, Request, Settings};

use super::fixture::{
    HOUR, clear_faults, fail_requests, fake_worker, float_metric, gap_count, model_worker,
    one_open_shard, one_shard, poll_every, read_table, read_table_from, received_values,
    replace_stream, started_fake_worker, stop_on_gap, stopped_after_start, suspend_machine,
    write_value,
};

#[tokio::test(start_paused = true)]
async fn reports_records_trimmed_during_downtime_and_continues() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    write_value(&worker, 2);
    worker.sleep_seconds(25 * HOUR).await;
    write_value(&worker, 3);
    worker.start_with(read_table);
    worker.wait_until("the client receives [1, 3]", || received_values(&worker) == [1, 3]).await;
    assert_eq!((gap_count(&worker), worker.metric_value("data_gaps_total", &[])), (1, 1));
    let lost = float_metric(&worker, "data_gap_seconds_total");
    assert!((3_500.0..3_700.0).contains(&lost), "{lost} s is not about an hour");
    worker.stop().await;
    worker.start_and_wait(read_table).await;
    worker.sleep_seconds(60).await;
    assert_eq!(gap_count(&worker), 0, "a restart must not report the gap again");
}

#[tokio::test(start_paused = true)]
async fn reports_shards_trimmed_unread() {
    let mut worker = model_worker(Settings { roll_ms: Some(4 * HOUR * 1000), ..one_shard() });
    worker.start_and_wait(read_table).await;
    worker.stop().await;
    write_value(&worker, 2);
    worker.sleep_seconds(40 * HOUR).await;
    write_value(&worker, 3);
    worker.start_with(read_table);
    worker.wait_until("the client receives [3]", || received_values(&worker) == [3]).await;
    assert!(gap_count(&worker) > 0);
    worker.wait_started().await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// The service cannot report that records of such a shard were trimmed. Only `readAt` shows it.
#[tokio::test(start_paused = true)]
async fn reports_a_shard_without_sequence_number_after_a_day_of_downtime() {
    for (hours, min_gaps) in [(17, 0), (25, 1)] {
        let mut worker = model_worker(one_open_shard());
        worker.sleep_seconds(60).await;
        worker.start_and_wait(poll_every(60, read_table_from(InitialPosition::Latest))).await;
        // The stream is quiet, so the worker writes only `readAt`.
        worker.sleep_seconds(50 * HOUR).await;
        assert_eq!(gap_count(&worker), 0);
        worker.kill().await;
        write_value(&worker, 1);
        worker.sleep_seconds(hours * HOUR).await;
        worker.start_and_wait(read_table).await;
        worker.sleep_seconds(60).await;
        // `readAt` can be up to 6 hours older than the crash.
        assert!(gap_count(&worker) >= min_gaps, "{hours} hours");
        assert!(hours > 18 || gap_count(&worker) == 0, "{hours} hours");
        worker.stop().await;
    }
}

/// The local clock stands still while the machine sleeps. The responses of the service show the time.
#[tokio::test(start_paused = true)]
async fn measures_a_gap_by_the_service_time_after_the_machine_slept() {
    for position in [InitialPosition::TrimHorizon, InitialPosition::Latest] {
        let mut worker = model_worker(one_open_shard());
        worker.sleep_seconds(60).await;
        worker.start_and_wait(read_table_from(position)).await;
        worker.sleep_seconds(10).await;
        assert_eq!(gap_count(&worker), 0);
        write_value(&worker, 1);
        suspend_machine(&worker, 25 * HOUR);
        write_value(&worker, 2);
        worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
        assert_eq!(gap_count(&worker), 1, "{position:?}");
        let lost = float_metric(&worker, "data_gap_seconds_total");
        assert!((3_500.0..3_700.0).contains(&lost), "{lost} s is not about an hour, {position:?}");
    }
}

/// Only the time at which the stream is found to be deleted shows the end of the gap.
#[tokio::test(start_paused = true)]
async fn measures_the_gap_of_a_deleted_stream() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    write_value(&worker, 2);
    worker.streams.with(Model::disable);
    worker.sleep_seconds(30 * HOUR).await;
    worker.start_with(read_table);
    worker.wait_until("the gap is reported", || gap_count(&worker) == 1).await;
    let lost = float_metric(&worker, "data_gap_seconds_total");
    assert!((21_500.0..21_700.0).contains(&lost), "{lost} s is not about six hours");
    worker.sleep_seconds(30 * HOUR).await;
    worker.streams.with(Model::enable);
    worker.sleep_seconds(60).await;
    write_value(&worker, 3);
    worker.wait_until("the client receives [1, 3]", || received_values(&worker) == [1, 3]).await;
    assert_eq!(gap_count(&worker), 1, "no record was lost while there was no stream");
}

#[tokio::test(start_paused = true)]
async fn halts_before_the_gap_with_on_gap_stop() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(stop_on_gap(read_table));
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    write_value(&worker, 2);
    worker.sleep_seconds(25 * HOUR).await;
    write_value(&worker, 3);
    let before = worker.store.checkpoint().unwrap().shards;
    for _ in 0..2 {
        worker.start_with(stop_on_gap(read_table));
        worker.wait_until("the worker halts", || worker.health().phase == Phase::HaltedOnGap).await;
        assert_eq!(gap_count(&worker), 1);
        worker.wait_exit().await;
        assert_eq!(worker.store.checkpoint().unwrap().shards, before);
        assert_eq!(received_values(&worker), [1]);
    }
    worker.start_with(read_table);
    worker.wait_until("the client receives [1, 3]", || received_values(&worker) == [1, 3]).await;
}

/// The worker cannot start for 30 hours, because it may not describe the connections table.
#[tokio::test(start_paused = true)]
async fn reports_records_trimmed_while_the_worker_could_not_start() {
    let mut worker = model_worker(one_open_shard());
    worker.sleep_seconds(60).await;
    worker.start_and_wait(read_table_from(InitialPosition::Latest)).await;
    worker.stop().await;
    worker.connections.set_error(Some(ConnectionsErrorKind::AccessDenied));
    worker.start_with(read_table);
    worker.sleep_seconds(60).await;
    write_value(&worker, 1);
    worker.sleep_seconds(30 * HOUR).await;
    write_value(&worker, 2);
    worker.connections.set_error(None);
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
    worker.sleep_seconds(HOUR).await;
    assert!(gap_count(&worker) > 0, "the loss of value 1 must be reported");
}

/// The worker is stopped for 20 hours after 5.5 quiet hours. A stop stores `readAt`, so this is no gap.
#[tokio::test(start_paused = true)]
async fn reports_no_gap_after_less_than_a_day_of_downtime() {
    let mut worker = model_worker(one_open_shard());
    worker.sleep_seconds(60).await;
    worker.start_and_wait(read_table_from(InitialPosition::Latest)).await;
    worker.sleep_seconds(5 * HOUR + HOUR / 2).await;
    worker.stop().await;
    worker.sleep_seconds(20 * HOUR).await;
    write_value(&worker, 1);
    worker.start_with(stop_on_gap(read_table));
    worker.sleep_seconds(60).await;
    let health = worker.health();
    assert!(health.phase == Phase::Reading && health.gap.is_none(), "{health:?}");
}

/// The second stream waits for the end of the first. It is deleted before the worker reads it.
#[tokio::test(start_paused = true)]
async fn reports_once_a_listed_stream_that_was_deleted_before_it_was_read() {
    let mut worker = stopped_after_start(one_open_shard()).await;
    replace_stream(&worker).await;
    write_value(&worker, 1);
    worker.sleep_seconds(20 * HOUR).await;
    worker.start_with(read_table);
    worker.sleep_seconds(5).await;
    fail_requests(&worker, Request::Describe, StreamErrorKind::AccessDenied);
    worker.streams.with(Model::disable);
    worker.sleep_seconds(30 * HOUR).await;
    clear_faults(&worker);
    worker.wait_until("the gap is reported", || gap_count(&worker) > 0).await;
    let lost = float_metric(&worker, "data_gap_seconds_total");
    assert!((93_500.0..93_800.0).contains(&lost), "{lost} s is not about 26 hours");
    worker.sleep_seconds(HOUR).await;
    assert_eq!(gap_count(&worker), 1, "the gap must be reported once");
}

/// One of two shards is missing from the first listing. The next listing is 30 hours later.
#[tokio::test(start_paused = true)]
async fn reports_a_trimmed_parent_that_was_never_listed() {
    for is_unlisted in [false, true] {
        let mut worker = model_worker(Settings {
            shards: 2,
            roll_ms: Some(4 * HOUR * 1000),
            ..one_open_shard()
        });
        let second = worker.streams.with(|model| model.shards()[1].id.clone());
        worker.streams.set_unlisted(is_unlisted.then_some(second));
        worker.start_and_wait(read_table).await;
        suspend_machine(&worker, 29 * HOUR);
        worker.sleep_seconds(HOUR).await;
        assert_eq!(
            gap_count(&worker),
            4,
            "both shards and their children, unlisted: {is_unlisted}"
        );
        assert_eq!(worker.problem_reasons(), [""; 0]);
        worker.stop().await;
    }
}

/// The gateway rejects every post, so no record is settled for 10 hours.
#[tokio::test(start_paused = true)]
async fn measures_a_gap_from_the_last_record_that_was_read() {
    let mut worker = model_worker(one_open_shard());
    worker.start_and_wait(read_table).await;
    worker.gateway.set_default_response(0, 403);
    for value in 1..=10 {
        write_value(&worker, value);
        worker.sleep_seconds(HOUR).await;
    }
    suspend_machine(&worker, 25 * HOUR);
    worker.wait_until("the gap is reported", || gap_count(&worker) == 1).await;
    let lost = float_metric(&worker, "data_gap_seconds_total");
    assert!((3_500.0..3_700.0).contains(&lost), "{lost} s is not about an hour");
}

/// The worker reads one empty page, although records follow, and then no page for 10 hours.
#[tokio::test(start_paused = true)]
async fn reports_a_gap_after_a_single_empty_page() {
    let mut worker = model_worker(one_open_shard());
    write_value(&worker, 1);
    fail_requests(&worker, Request::Records, StreamErrorKind::AccessDenied);
    worker.start_with(read_table);
    worker.sleep_seconds(20 * HOUR).await;
    worker.streams.with(|model| model.settings.empty_page = 1.0);
    clear_faults(&worker);
    worker.sleep_seconds(10).await;
    fail_requests(&worker, Request::Records, StreamErrorKind::AccessDenied);
    worker.streams.with(|model| model.settings.empty_page = 0.0);
    worker.sleep_seconds(10 * HOUR).await;
    write_value(&worker, 2);
    clear_faults(&worker);
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
    assert_eq!(gap_count(&worker), 1);
}

/// The records after a gap cannot be read for 15 hours, so some of them are trimmed too.
#[tokio::test(start_paused = true)]
async fn reports_records_trimmed_after_a_gap() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    write_value(&worker, 2);
    worker.sleep_seconds(10 * HOUR).await;
    write_value(&worker, 3);
    worker.sleep_seconds(15 * HOUR).await;
    fail_requests(&worker, Request::Records, StreamErrorKind::AccessDenied);
    worker.start_with(read_table);
    worker.sleep_seconds(15 * HOUR).await;
    assert_eq!(gap_count(&worker), 1);
    write_value(&worker, 4);
    clear_faults(&worker);
    worker.wait_until("the client receives [1, 4]", || received_values(&worker) == [1, 4]).await;
    assert_eq!(gap_count(&worker), 2);
    let lost = float_metric(&worker, "data_gap_seconds_total");
    assert!((16.0 * 3_600.0 - lost).abs() < 100.0, "{lost} s is not about 16 hours");
}

#[tokio::test(start_paused = true)]
async fn reports_trimmed_records_and_continues() {
    let worker = started_fake_worker().await;
    // The worker has not read a record, and the trimmed records precede its start.
    worker.streams.fail_next("Records", StreamErrorKind::Trimmed);
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    assert_eq!(worker.metric_value("data_gaps_total", &[]), 0);
    worker.streams.fail_next("Records", StreamErrorKind::Trimmed);
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker
        .wait_until("the client receives [1, 1, 2]", || received_values(&worker) == [1, 1, 2])
        .await;
    assert_eq!(worker.streams.iterators("only").last(), Some(&IteratorStart::TrimHorizon));
    assert_eq!(worker.metric_value("data_gaps_total", &[]), 1);
}

#[tokio::test(start_paused = true)]
async fn starts_the_child_of_a_trimmed_shard() {
    for is_read in [false, true] {
        let mut worker = fake_worker();
        worker.streams.open("parent", None);
        worker.start("a", InitialPosition::Latest);
        worker.wait_started().await;
        if is_read {
            worker.streams.append("parent", new_record(1, "fuga", "hoge"));
            worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
        }
        worker.streams.open("child", Some("parent"));
        worker.streams.append("child", new_record(2, "fuga", "hoge"));
        worker.streams.trim("parent");
        worker.wait_until("the client receives 2", || received_values(&worker).contains(&2)).await;
        // An unread shard is a gap only if it may be older than a day.
        assert_eq!(worker.health().gap.is_some(), is_read);
    }
}
