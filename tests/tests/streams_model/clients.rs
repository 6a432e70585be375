//! Both interfaces of the simulated table, the trait and HTTP with the real client, return the same records.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::model::{Record, SequenceNumber, ShardId, StreamLabel, UnixSeconds, ViewType};
use stream_notifier::streams::{
    IteratorStart, Shard, ShardFilter, ShardIterator, StreamErrorKind, StreamStatus, Streams,
};
use stream_notifier_tests::streams_model::{
    Clock, Fault, FaultTiming, HttpStreams, Key, Model, ModelStreams, Request, Settings, to_record,
};
use tokio::time::Instant;

const BEGIN: u64 = 1_795_341_600_123;
const HOUR: u64 = 3_600_000;

/// A table whose shards have rolled and split, and whose first stream has a successor.
fn table_with_history() -> Arc<Mutex<Model>> {
    let settings = Settings { shards: 2, roll_ms: Some(HOUR), ..Settings::default() };
    let mut model = Model::new(settings, Rng::with_seed(1), BEGIN);
    for n in 0..300 {
        model.advance_to(BEGIN + n * 60_000);
        model.write(&Key::target(&(n % 10).to_string(), "hoge"), Some(n).filter(|n| n % 17 > 0));
        match n {
            100 => model.split(model.open_shards()[0]),
            200 => model.disable(),
            210 => model.enable(),
            _ => {}
        }
    }
    Arc::new(Mutex::new(model))
}

/// Serves the model over HTTP. Returns the server and the real client.
async fn serve_over_http(model: &Arc<Mutex<Model>>) -> Result<(HttpStreams, DynamoDbStreams)> {
    let server = HttpStreams::start(model.clone(), None).await?;
    let aws = AwsConfig::local(&server.endpoint).await;
    let arn = model.lock().unwrap().table_arn();
    Ok((server, DynamoDbStreams::new(&aws, "eu-west-1", &arn)))
}

/// Reads every stream, every shard, and every record in the order of the shards.
async fn read_everything(
    streams: &impl Streams,
) -> Result<(Vec<StreamLabel>, Vec<Shard>, Vec<Record>)> {
    let labels = streams.list().await?;
    let (mut shards, mut records) = (vec![], vec![]);
    for label in &labels {
        let page = streams.describe(label, ShardFilter::All, None).await?;
        assert_eq!(page.view_type, ViewType::NewAndOldImages);
        assert_eq!((page.keys.partition.as_str(), page.keys.sort.as_deref()), ("PK", Some("SK")));
        for shard in &page.shards {
            let mut next =
                Some(streams.get_iterator(&shard.id, &IteratorStart::TrimHorizon).await?);
            // An open shard has no last page, so reading stops at the first empty one.
            while let Some(iterator) = next {
                let page = streams.get_records(&iterator).await?;
                next = page.next_iterator.filter(|_| !page.records.is_empty());
                records.extend(page.records);
            }
        }
        shards.extend(page.shards);
    }
    Ok((labels, shards, records))
}

#[tokio::test]
async fn returns_the_same_records_over_both_interfaces() -> Result<()> {
    let model = table_with_history();
    let direct = ModelStreams::new(model.clone(), Clock::starting_at(BEGIN));
    let (_server, client) = serve_over_http(&model).await?;
    let (labels, shards, records) = read_everything(&direct).await?;
    assert_eq!(read_everything(&client).await?, (labels.clone(), shards.clone(), records.clone()));
    let model = model.lock().unwrap();
    assert_eq!((labels.len(), shards.len()), (2, model.shards().len()));
    let mut written: Vec<_> = (0..model.records().len()).map(|n| to_record(&model, n)).collect();
    assert!(written.len() > 200);
    let mut read = records;
    let id = |record: &Record| record.event_id.clone();
    written.sort_by_key(id);
    read.sort_by_key(id);
    assert_eq!(read, written);
    Ok(())
}

#[tokio::test]
async fn serves_every_position_and_the_children_of_a_shard() -> Result<()> {
    let model = table_with_history();
    let (_server, client) = serve_over_http(&model).await?;
    let (stream, shard, child, numbers, seconds) = {
        let model = model.lock().unwrap();
        let split = model.shards().iter().find(|shard| shard.children.len() == 2).unwrap();
        let stream = StreamLabel::new(&model.streams()[split.stream].label);
        let records: Vec<_> = split.records.iter().map(|n| &model.records()[*n]).collect();
        let numbers: Vec<_> = records.iter().map(|record| record.number.to_string()).collect();
        let seconds: Vec<_> = records.iter().map(|record| record.created / 1_000).collect();
        let id = |shard: &str| ShardId::new(&stream, shard);
        let child = id(&model.shards()[split.children[0]].id);
        (stream.clone(), id(&split.id), child, numbers, seconds)
    };
    let number = SequenceNumber::parse(&numbers[2]).unwrap();
    for (from, begin) in [
        (IteratorStart::TrimHorizon, 0),
        (IteratorStart::After(number), 3),
        (IteratorStart::At(UnixSeconds(seconds[3] as i64)), 3),
    ] {
        let iterator = client.get_iterator(&shard, &from).await?;
        let page = client.get_records(&iterator).await?;
        let read: Vec<_> =
            page.records.iter().map(|record| record.sequence_number.as_str()).collect();
        assert_eq!(read, numbers[begin..], "{from:?}");
        assert!(page.next_iterator.is_none());
    }
    let page = client.describe(&stream, ShardFilter::ChildrenOf(&shard), None).await?;
    assert!(page.shards.len() == 2 && page.shards.iter().any(|listed| listed.id == child));
    assert!(page.shards.iter().all(|listed| listed.parent.as_ref() == Some(&shard)));
    assert_eq!(page.status, StreamStatus::Disabled);
    assert_eq!(page.service_time, UnixSeconds((BEGIN / 1_000 + 299 * 60) as i64));
    Ok(())
}

#[tokio::test]
async fn returns_every_error_as_the_service_does() -> Result<()> {
    let model = table_with_history();
    let (_server, client) = serve_over_http(&model).await?;
    let (labels, shards, _) = read_everything(&client).await?;
    let first = &shards[0].id;
    let old = client.get_iterator(first, &IteratorStart::TrimHorizon).await?;
    let number = client.get_records(&old).await?.records[0].sequence_number.clone();

    let nonsense = ShardIterator("nonsense".to_owned());
    let kind = client.get_records(&nonsense).await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::Invalid);
    model.lock().unwrap().settings.throttling.describes = Some(0);
    let kind = client.describe(&labels[0], ShardFilter::All, None).await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::Throttled);
    model.lock().unwrap().advance_to(BEGIN + 24 * HOUR + HOUR / 2);
    let kind = client.get_records(&old).await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::ExpiredIterator);
    let kind = client.get_iterator(first, &IteratorStart::After(number)).await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::Trimmed);
    model.lock().unwrap().advance_to(BEGIN + 48 * HOUR);
    let kind = client.get_iterator(first, &IteratorStart::TrimHorizon).await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::NotFound);
    model.lock().unwrap().settings.unavailable = 1.0;
    let kind = client.list().await.unwrap_err().kind;
    assert_eq!(kind, StreamErrorKind::Unavailable);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn follows_the_paused_clock_and_injects_faults() -> Result<()> {
    let model = table_with_history();
    let clock = Clock::starting_at(model.lock().unwrap().now());
    let streams = ModelStreams::new(model, clock);
    let requests = |streams: &ModelStreams| {
        streams.with(|model| model.counts().get("ListStreams").copied().unwrap_or(0))
    };
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(streams.with(|model| model.now()), BEGIN + 299 * 60_000 + 7_000);

    let second = Duration::from_secs(1);
    streams.set_latency(second..2 * second, 1);
    let start = Instant::now();
    streams.list().await?;
    assert!(start.elapsed() >= second && start.elapsed() < 2 * second);

    for (moment, received) in [(FaultTiming::Before, 0), (FaultTiming::After, 1)] {
        let before = requests(&streams);
        streams.set_faults(move |call, now| {
            (call == Request::Streams && now == moment).then_some(Fault::TimesOut)
        });
        let start = Instant::now();
        let error = streams.list().await.unwrap_err();
        assert_eq!(error.kind, StreamErrorKind::Unavailable);
        assert!(start.elapsed() >= 15 * second);
        assert_eq!(requests(&streams) - before, received, "{moment:?}");
    }
    streams.set_faults(|_, _| Some(Fault::Fails(StreamErrorKind::AccessDenied)));
    assert_eq!(streams.list().await.unwrap_err().kind, StreamErrorKind::AccessDenied);
    Ok(())
}
