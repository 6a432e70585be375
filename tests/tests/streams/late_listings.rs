//! Listings that lag behind: they show a shard late, or lack one that exists.
//!
//! The worker waits for later listings. It repeats no record and loses none.

use stream_notifier::model::Position;
use stream_notifier::streams::{InitialPosition, StreamErrorKind};
use stream_notifier_tests::fakes::{Worker, new_record, sequence_number};
use stream_notifier_tests::streams_model::{Fault, FaultTiming, Request, Settings};
use tokio::time::Instant;

use super::fixture::{
    HOUR, describe_stream_requests, fake_worker, gap_count, model_worker, one_open_shard,
    poll_every, read_table, received_values, shard_name, store_checkpoint, suspend_machine,
    write_value,
};

/// All shards roll together, and listings are up to 4 s old.
#[tokio::test(start_paused = true)]
async fn reads_children_that_are_listed_late_within_six_seconds() {
    for shards in [1, 2, 50] {
        let mut worker = model_worker(Settings { shards, ..one_open_shard() });
        worker.start_and_wait(read_table).await;
        worker.sleep_seconds(60).await;
        worker.streams.with(|model| {
            model.settings.inconsistency.stale = 1.0;
            model.settings.inconsistency.stale_ms = 4_000;
            (0..shards).for_each(|shard| model.roll(shard));
        });
        write_value(&worker, 1);
        let start = Instant::now();
        worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
        assert!(start.elapsed().as_secs() < 6, "{:?}, {shards} shards", start.elapsed());
        worker.stop().await;
    }
}

/// 300 shards roll, and no listing shows a child.
#[tokio::test(start_paused = true)]
async fn polls_for_missing_children_less_than_twice_per_second() {
    let mut worker = model_worker(Settings { shards: 300, ..one_open_shard() });
    worker.start_and_wait(read_table).await;
    worker.sleep_seconds(60).await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 1_000 * HOUR * 1_000;
        (0..300).for_each(|shard| model.roll(shard));
    });
    worker.sleep_seconds(60).await;
    let before = describe_stream_requests(&worker);
    worker.sleep_seconds(300).await;
    let per_second = (describe_stream_requests(&worker) - before) / 300.0;
    assert!(
        per_second < 2.0,
        "{per_second} DescribeStream requests per second, of 8 for the account"
    );
}

/// A shard that was listed once is neither listed nor found. It is too young to be trimmed.
#[tokio::test(start_paused = true)]
async fn waits_for_a_young_shard_that_is_not_found_before_it_reports_a_gap() {
    for (seconds, received, gaps) in [(40, vec![1], 0), (120, vec![], 1)] {
        let mut worker = model_worker(one_open_shard());
        worker.start_and_wait(read_table).await;
        worker.streams.with(|model| model.roll(0));
        write_value(&worker, 1);
        worker.streams.set_not_found(Some(shard_name(&worker, 1)));
        worker
            .wait_until("the child has an entry", || {
                worker.store.checkpoint().unwrap().shards.len() == 2
            })
            .await;
        worker.streams.set_unlisted(Some(shard_name(&worker, 1)));
        worker.sleep_seconds(seconds).await;
        worker.streams.set_not_found(None);
        worker.streams.set_unlisted(None);
        worker.sleep_seconds(60).await;
        assert_eq!((received_values(&worker), gap_count(&worker)), (received, gaps), "{seconds} s");
        worker.stop().await;
    }
}

/// The worker has read the shard before.
#[tokio::test(start_paused = true)]
async fn keeps_a_young_shard_after_a_not_found_response() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.streams.set_not_found(Some(shard_name(&worker, 0)));
    worker.streams.set_unlisted(Some(shard_name(&worker, 0)));
    suspend_machine(&worker, HOUR);
    write_value(&worker, 2);
    worker.sleep_seconds(30).await;
    worker.streams.set_not_found(None);
    worker.streams.set_unlisted(None);
    worker.sleep_seconds(60).await;
    assert_eq!((received_values(&worker), gap_count(&worker)), (vec![1, 2], 0));
}

/// The parent is neither listed nor found at first. It is too young to be trimmed.
#[tokio::test(start_paused = true)]
async fn waits_for_a_young_parent_that_is_not_found() {
    let mut worker = model_worker(one_open_shard());
    write_value(&worker, 1);
    worker.sleep_seconds(60).await;
    worker.streams.with(|model| model.roll(0));
    write_value(&worker, 2);
    worker.streams.set_not_found(Some(shard_name(&worker, 0)));
    worker.streams.set_unlisted(Some(shard_name(&worker, 0)));
    worker.start_with(read_table);
    worker.sleep_seconds(4).await;
    worker.streams.set_not_found(None);
    worker.streams.set_unlisted(None);
    worker
        .wait_until("the client receives 2", || received_values(&worker).last() == Some(&2))
        .await;
    assert_eq!((received_values(&worker), gap_count(&worker)), (vec![1, 2], 0));
}

/// The checkpoint has lost most entries of finished shards, because there were too many. Then a listing
/// lacks one shard of a lineage, so it does not show the ancestors of that shard.
#[tokio::test(start_paused = true)]
async fn repeats_nothing_after_a_restart_with_an_incomplete_listing() {
    let mut worker = model_worker(Settings { shards: 1500, ..one_open_shard() });
    for round in 0..4 {
        worker.sleep_seconds(HOUR).await;
        write_value(&worker, round + 1);
        let shards = round as usize * 1500..(round as usize + 1) * 1500;
        worker.streams.with(|model| shards.for_each(|shard| model.roll(shard)));
    }
    write_value(&worker, 5);
    worker.start_with(poll_every(10, read_table));
    worker
        .wait_until("the client receives [1, 2, 3, 4, 5]", || {
            received_values(&worker) == [1, 2, 3, 4, 5]
        })
        .await;
    worker.sleep_seconds(300).await;
    worker.stop().await;
    let lineage: Vec<_> = worker.streams.with(|model| {
        let last = model.records().last().unwrap().shard;
        std::iter::once(last).chain(model.ancestors(last)).collect()
    });
    for hidden in lineage {
        worker.streams.set_unlisted(Some(shard_name(&worker, hidden)));
        worker.start_with(poll_every(10, read_table));
        worker.sleep_seconds(20).await;
        worker.streams.set_unlisted(None);
        worker.sleep_seconds(60).await;
        assert_eq!(
            (received_values(&worker), gap_count(&worker)),
            (vec![1, 2, 3, 4, 5], 0),
            "{hidden}"
        );
        worker.stop().await;
    }
}

/// The child is never listed, and its parent is missing for a minute.
#[tokio::test(start_paused = true)]
async fn reports_a_missing_child_whose_parent_was_missing_too() {
    let mut worker = model_worker(one_open_shard());
    worker.start_and_wait(read_table).await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 1_000 * HOUR * 1_000;
        model.roll(0);
    });
    write_value(&worker, 1);
    worker.sleep_seconds(10).await;
    worker.streams.set_unlisted(Some(shard_name(&worker, 0)));
    worker.sleep_seconds(60).await;
    worker.streams.set_unlisted(None);
    worker.sleep_seconds(600).await;
    assert_eq!(worker.problem_reasons(), ["NoChildShard"]);
}

/// The parent is never listed, but the service still returns iterators for it.
#[tokio::test(start_paused = true)]
async fn reads_a_child_whose_parent_is_never_listed() {
    let mut worker = model_worker(one_open_shard());
    worker.streams.with(|model| model.roll(0));
    let parent = worker.streams.with(|model| model.shards()[0].id.clone());
    worker.streams.set_unlisted(Some(parent));
    write_value(&worker, 1);
    worker.start_with(read_table);
    worker.sleep_seconds(10 * 60).await;
    assert_eq!(received_values(&worker), [1], "{:?}", worker.health());
}

/// Every third request is throttled, because other programs list too.
#[tokio::test(start_paused = true)]
async fn resumes_a_listing_at_the_throttled_page() {
    let mut worker = model_worker(Settings { shards: 40, shards_per_page: 1, ..one_open_shard() });
    let mut requests = 0;
    worker.streams.inner.set_faults(move |request, moment| {
        let is_describe = (request, moment) == (Request::Describe, FaultTiming::Before);
        requests += u32::from(is_describe);
        (is_describe && requests % 3 == 0).then_some(Fault::Fails(StreamErrorKind::Throttled))
    });
    worker.start_with(read_table);
    worker.sleep_seconds(60).await;
    write_value(&worker, 1);
    worker.sleep_seconds(5).await;
    assert_eq!(received_values(&worker), [1]);
}

#[tokio::test(start_paused = true)]
async fn repeats_nothing_while_a_listing_is_stale() {
    let mut worker = fake_worker();
    open_lineage(&worker);
    worker.start("a", InitialPosition::TrimHorizon);
    worker
        .wait_until("the client receives [1, 2, 3]", || received_values(&worker) == [1, 2, 3])
        .await;
    worker.sleep_seconds(10).await;
    for hidden in [&["c"][..], &["b"], &["a", "b"], &["a", "b", "c"]] {
        for shard in hidden {
            worker.streams.hide(shard, true);
        }
        worker.sleep_seconds(100).await;
        for shard in hidden {
            worker.streams.hide(shard, false);
        }
        worker.sleep_seconds(100).await;
        assert_eq!(received_values(&worker), [1, 2, 3], "{hidden:?} were missing");
    }
}

#[tokio::test(start_paused = true)]
async fn starts_no_shard_from_a_stale_listing_after_a_restart() {
    let mut worker = fake_worker();
    open_lineage(&worker);
    store_checkpoint(&worker, &[("c", Position::After(sequence_number(3)))]);
    worker.streams.hide("c", true);
    worker.start("a", InitialPosition::TrimHorizon);
    worker.sleep_seconds(100).await;
    assert_eq!(received_values(&worker), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn forgets_a_finished_shard_one_hour_after_its_last_listing() {
    let mut worker = fake_worker();
    open_lineage(&worker);
    worker.start("a", InitialPosition::TrimHorizon);
    worker
        .wait_until("the client receives [1, 2, 3]", || received_values(&worker) == [1, 2, 3])
        .await;
    worker.streams.trim("a");
    worker.sleep_seconds(3_000).await;
    assert_eq!(worker.settled_position("a"), Some(Position::Finished), "a listing may be stale");
    worker.sleep_seconds(700).await;
    assert_eq!(worker.settled_position("a"), None);
    assert_eq!(worker.settled_position("b"), Some(Position::Finished));
}

#[tokio::test(start_paused = true)]
async fn repeats_nothing_while_the_listing_of_children_is_stale() {
    let mut worker = fake_worker();
    worker.streams.open("a", None);
    worker.streams.append("a", new_record(1, "fuga", "hoge"));
    worker.streams.close("a");
    worker.streams.open("b", Some("a"));
    worker.streams.append("b", new_record(2, "fuga", "hoge"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.wait_started().await;
    worker.streams.hide("a", true);
    worker.streams.close("b");
    worker.sleep_seconds(8).await;
    worker.streams.hide("a", false);
    worker.sleep_seconds(60).await;
    assert_eq!(received_values(&worker), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn keeps_a_child_waiting_for_its_parent_while_a_listing_lacks_it() {
    let mut worker = fake_worker();
    worker.streams.open("a", None);
    worker.streams.close("a");
    worker.streams.append("a", new_record(1, "fuga", "hoge"));
    worker.streams.open("b", Some("a"));
    worker.gateway.script("connection", &[(50_000, 200), (0, 200)]);
    worker.start("a", InitialPosition::Latest);
    worker.sleep_seconds(1).await;
    worker.streams.hide("b", true);
    worker.sleep_seconds(45).await;
    assert_eq!(worker.streams.iterators("b"), []);
    worker.wait_started().await;
}

/// Adds three generations of shards with one record each. All but the last are closed.
fn open_lineage(worker: &Worker) {
    for (n, (shard, parent)) in [("a", None), ("b", Some("a")), ("c", Some("b"))].iter().enumerate()
    {
        worker.streams.open(shard, *parent);
        worker.streams.append(shard, new_record(u32::try_from(n).unwrap() + 1, "fuga", "hoge"));
        if *shard != "c" {
            worker.streams.close(shard);
        }
    }
}
