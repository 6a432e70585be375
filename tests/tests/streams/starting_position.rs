//! The position at which a first start begins to read each shard.

use jiff::Timestamp;
use stream_notifier::checkpoint::StartKind;
use stream_notifier::model::UnixSeconds;
use stream_notifier::streams::{InitialPosition, IteratorStart, StreamErrorKind};
use stream_notifier::telemetry::Phase;
use stream_notifier_tests::fakes::new_record;
use stream_notifier_tests::streams_model::{Fault, Request, Settings};

use super::fixture::{
    BEGIN, HOUR, fail_first_request, fake_worker, gap_count, model_worker, one_open_shard,
    one_shard, poll_every, read_table, read_table_from, received_values, stop_on_gap, write_value,
};

#[tokio::test(start_paused = true)]
async fn starts_every_shard_at_a_timestamp_with_and_without_support_by_the_service() {
    for supports_timestamps in [true, false] {
        let settings = Settings { roll_ms: Some(HOUR * 1000), supports_timestamps, ..one_shard() };
        let mut worker = model_worker(settings);
        for value in 1..6 {
            worker.sleep_seconds(HOUR).await;
            write_value(&worker, value);
        }
        let at = Timestamp::from_millisecond((BEGIN + 3 * HOUR * 1000) as i64 - 60_000).unwrap();
        worker.start_with(read_table_from(InitialPosition::AtTimestamp(at)));
        worker.sleep_seconds(60).await;
        assert_eq!(received_values(&worker), [3, 4, 5]);
        let start = worker.store.checkpoint().unwrap().start;
        assert_eq!((start.kind, start.at), (StartKind::AtTimestamp, at));
        assert_eq!(gap_count(&worker), 0);
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn skips_records_before_a_future_timestamp() {
    let mut worker = model_worker(one_shard());
    let at = Timestamp::from_millisecond((BEGIN + HOUR * 1000) as i64).unwrap();
    worker.start_and_wait(read_table_from(InitialPosition::AtTimestamp(at))).await;
    write_value(&worker, 1);
    worker.sleep_seconds(2 * HOUR).await;
    write_value(&worker, 2);
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn does_not_replay_an_old_closed_shard_that_is_listed_late() {
    let mut worker = model_worker(Settings { roll_ms: Some(HOUR * 1000), ..one_shard() });
    for value in 1..6 {
        worker.sleep_seconds(HOUR).await;
        write_value(&worker, value);
    }
    worker.sleep_seconds(60).await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 3 * HOUR * 1000;
    });
    worker.start_with(poll_every(10, read_table_from(InitialPosition::Latest)));
    worker.sleep_seconds(6 * HOUR).await;
    write_value(&worker, 6);
    worker.sleep_seconds(4 * HOUR).await;
    assert_eq!(received_values(&worker), [6]);
}

#[tokio::test(start_paused = true)]
async fn ignores_a_checkpoint_of_another_table() {
    let mut worker = model_worker(one_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    let mut other = worker.store.checkpoint().unwrap();
    other.start.stream = other.start.stream.replace("sample-table-dev", "another-table");
    worker.store.write(&other);
    worker.start_with(read_table);
    worker.wait_until("the client receives [1, 1]", || received_values(&worker) == [1, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn starts_latest_one_second_before_the_service_time() {
    let mut worker = fake_worker();
    let mut old = new_record(1, "fuga", "hoge");
    old.approximate_creation_time = UnixSeconds(old.approximate_creation_time.0 - 2);
    worker.streams.open("grandparent", None);
    worker.streams.append("grandparent", old.clone());
    worker.streams.close("grandparent");
    worker.streams.open("parent", Some("grandparent"));
    worker.streams.append("parent", old.clone());
    worker.streams.close("parent");
    worker.streams.open("child", Some("parent"));
    worker.streams.append("child", old);
    worker.streams.append("child", new_record(2, "fuga", "hoge"));
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
    let now = new_record(2, "fuga", "hoge").approximate_creation_time.0;
    let start = IteratorStart::At(UnixSeconds(now - 1));
    // A closed shard may have rolled during the listing.
    for shard in ["grandparent", "parent", "child"] {
        assert_eq!(worker.streams.iterators(shard), std::slice::from_ref(&start));
    }
}

#[tokio::test(start_paused = true)]
async fn skips_records_before_the_start_in_a_child_shard() {
    let mut worker = fake_worker();
    worker.streams.open("parent", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.streams.open("child", Some("parent"));
    let mut old = new_record(1, "fuga", "hoge");
    old.approximate_creation_time = UnixSeconds(old.approximate_creation_time.0 - 2);
    worker.streams.append("child", old);
    worker.streams.append("child", new_record(2, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.wait_until("the client receives [2]", || received_values(&worker) == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn loses_no_record_of_a_shard_that_rolls_during_the_listing() {
    let mut worker = fake_worker();
    for n in 0..150 {
        worker.streams.open(&format!("shard-{n:03}"), None);
    }
    worker.streams.roll_between_pages();
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
}

/// The oldest record is trimmed between the request for the iterator and the read.
#[tokio::test(start_paused = true)]
async fn reports_no_gap_if_the_oldest_record_is_trimmed_at_the_first_start() {
    let mut worker = model_worker(one_open_shard());
    fail_first_request(&worker, Request::Records, Fault::Fails(StreamErrorKind::Trimmed));
    worker.start_with(stop_on_gap(read_table));
    worker.sleep_seconds(60).await;
    let health = worker.health();
    assert!(health.phase == Phase::Reading && health.gap.is_none(), "{health:?}");
}

/// With `Latest`, the first listing has a closed shard, which expires before it is read.
#[tokio::test(start_paused = true)]
async fn reports_no_gap_if_a_closed_shard_expires_at_the_first_start() {
    let mut worker = model_worker(one_open_shard());
    worker.sleep_seconds(HOUR).await;
    worker.streams.with(|model| model.roll(0));
    worker.sleep_seconds(24 * HOUR - 5).await;
    fail_first_request(&worker, Request::Iterator, Fault::TimesOut);
    worker.start_with(stop_on_gap(read_table_from(InitialPosition::Latest)));
    worker.sleep_seconds(120).await;
    let health = worker.health();
    assert!(health.phase == Phase::Reading && health.gap.is_none(), "{health:?}");
}

/// A worker stores an entry for every listed shard, and a ConfigMap holds about 10,000.
#[tokio::test(start_paused = true)]
async fn fits_a_first_start_with_7500_shards_into_a_config_map() {
    let mut worker = model_worker(Settings { roll_ms: None, shards: 1500, ..Settings::default() });
    for round in 0..4 {
        worker.sleep_seconds(HOUR).await;
        for shard in round * 1500..(round + 1) * 1500 {
            worker.streams.with(|model| model.roll(shard));
        }
    }
    worker.start_and_wait(poll_every(10, read_table_from(InitialPosition::Latest))).await;
    worker.sleep_seconds(10).await;
    let max_entries = worker.store.saves().iter().map(|save| save.shards.len()).max().unwrap();
    assert!((5_000..=6_001).contains(&max_entries), "{max_entries} entries of 7,500");
}
