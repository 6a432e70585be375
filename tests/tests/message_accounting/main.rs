//! Accounts for every message of every record: it was delivered, its connection is closed, or it was
//! dropped and counted for a reason that the policy allows.
//!
//! Records, connections, their behavior, policies and limits are drawn from a seed. `SEEDS=10000` runs
//! the first 10,000 seeds, `SEED=7` runs only that seed.

mod backends;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Arc;
use std::time::Duration;

use backends::{
    BEHAVIORS, Behavior, Client, DropRecorder, Observations, RecordingTable, ScriptedGateway,
    SharedObservations, id,
};
use fastrand::Rng;
use stream_notifier::delivery::{
    DeliveryLimits, DeliveryPolicy, PostRateLimiter, SlowClientAction,
};
use stream_notifier::model::Position;
use stream_notifier::streams::InitialPosition;
use stream_notifier::telemetry::{Metrics, Phase};
use stream_notifier::timing::JitterRng;
use stream_notifier::worker::{Backends, WorkerConfig, run_worker};
use stream_notifier_tests::fakes::{
    FakeConnections, FakeStreams, MemoryStore, metric_value, new_record, sequence_number, shard_id,
    worker_config,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const SEEDS: u64 = 300;

/// The time until every record is settled once all connections respond, at most.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The drawn settings of a run.
#[derive(Clone, Copy, Debug)]
struct Settings {
    policy: DeliveryPolicy,
    max_pages: usize,
    limits: DeliveryLimits,
    posts_per_second: u32,
    groups: usize,
    items: usize,
    clients: usize,
    steps: usize,
}

impl Settings {
    fn draw(rng: &mut Rng) -> Self {
        let slow_clients =
            [SlowClientAction::Wait, SlowClientAction::Drop, SlowClientAction::Disconnect];
        Self {
            policy: DeliveryPolicy {
                max_age: Duration::from_secs([3, 20, 300][rng.usize(..3)]),
                max_attempts: rng.bool().then(|| rng.u32(1..=4)),
                slow_client: slow_clients[rng.usize(..3)],
            },
            max_pages: [1, 16][rng.usize(..2)],
            limits: DeliveryLimits {
                memory_kib: [2, 8, 64][rng.usize(..3)],
                max_queued_messages: [1, 5, 65_536][rng.usize(..3)],
                connection_kib: [1, 3, 512][rng.usize(..3)],
                max_posts: [1, 3, 1_024][rng.usize(..3)],
            },
            posts_per_second: [20, 1_000_000][rng.usize(..2)],
            groups: rng.usize(1..=2),
            items: rng.usize(1..=5),
            clients: rng.usize(1..=5),
            steps: rng.usize(5..=40),
        }
    }

    fn apply(&self, mut config: WorkerConfig, seed: u64) -> WorkerConfig {
        (config.delivery.policy, config.delivery.limits) = (self.policy, self.limits);
        config.consumer.poll_interval = Duration::from_millis(250);
        config.consumer.max_pages = self.max_pages;
        WorkerConfig {
            post_limiter: Arc::new(PostRateLimiter::new(self.posts_per_second)),
            rng: Arc::new(JitterRng::seeded(seed)),
            ..config
        }
    }

    /// Whether a message may be dropped for this reason.
    fn allows_drop(&self, reason: &str) -> bool {
        let Self { policy, limits, .. } = self;
        let has_connection_limit = limits.connection_kib < limits.memory_kib;
        match reason {
            "expired" => true,
            "attempts_exhausted" => policy.max_attempts.is_some(),
            "superseded" => policy.slow_client == SlowClientAction::Drop || has_connection_limit,
            "overflow" => has_connection_limit,
            "disconnected" => policy.slow_client == SlowClientAction::Disconnect,
            _ => false,
        }
    }
}

/// A run in progress.
struct Run {
    settings: Settings,
    rng: Rng,
    observed: SharedObservations,
    streams: Arc<FakeStreams>,
    table: Arc<RecordingTable>,
    /// Item and group of each record.
    records: Vec<(usize, usize)>,
}

impl Run {
    fn connect(&mut self) {
        let mut observed = self.observed.lock().unwrap();
        let number = observed.clients.len();
        let group = self.rng.usize(..self.settings.groups);
        self.table.0.put_new(&id(number), &format!("group-{group}"));
        observed.clients.push(Client {
            id: id(number),
            group,
            behavior: Behavior::Responsive,
            was_always_responsive: true,
            received: vec![],
            has_post_in_flight: false,
            was_disconnected: false,
        });
    }

    fn append_record(&mut self) {
        let item = self.rng.usize(..self.settings.items);
        let group = item % self.settings.groups;
        self.records.push((item, group));
        let n = self.records.len() as u32;
        let record = new_record(n, &format!("item-{item}"), &format!("group-{group}"));
        self.streams.append("only", record);
    }

    fn step(&mut self) {
        match self.rng.u8(..10) {
            0 if self.observed.lock().unwrap().clients.len() < 8 => self.connect(),
            1 => {
                let is_forbidden = self.rng.u8(..3) == 0;
                self.observed.lock().unwrap().is_forbidden = is_forbidden;
            }
            2..=5 => {
                let behavior = BEHAVIORS[self.rng.usize(..BEHAVIORS.len())];
                let mut observed = self.observed.lock().unwrap();
                let client = self.rng.usize(..observed.clients.len());
                let client = &mut observed.clients[client];
                // A closed connection stays closed.
                if client.behavior != Behavior::Closed {
                    client.behavior = behavior;
                    client.was_always_responsive &= behavior == Behavior::Responsive;
                }
            }
            _ => (0..self.rng.usize(1..=12)).for_each(|_| self.append_record()),
        }
    }

    /// Makes every connection responsive that is not closed.
    fn recover(&mut self) {
        let mut observed = self.observed.lock().unwrap();
        observed.is_forbidden = false;
        for client in &mut observed.clients {
            if client.behavior != Behavior::Closed {
                client.behavior = Behavior::Responsive;
            }
        }
    }

    /// Checks that every message is accounted for.
    fn check(&self, metrics: &Metrics) -> Result<(), String> {
        let observed = &*self.observed.lock().unwrap();
        let settings = &self.settings;
        ensure(!observed.has_concurrent_posts, || {
            "a connection had two posts in flight".to_owned()
        })?;
        let max_in_flight = observed.max_in_flight;
        ensure(max_in_flight <= settings.limits.max_posts, || {
            format!("{max_in_flight} posts in flight")
        })?;

        // A page has one record, so that each record has its own lookup.
        let mut lookups: BTreeMap<_, _> =
            observed.lookups.iter().map(|(group, found)| (*group, found.iter())).collect();
        let mut expected = BTreeSet::new();
        for (n, (_, group)) in self.records.iter().enumerate() {
            let found = lookups.get_mut(group).and_then(Iterator::next);
            let found = found.ok_or_else(|| format!("record {} was never looked up", n + 1))?;
            expected.extend(found.iter().map(|client| (*client, n as u32 + 1)));
        }
        for number in 0..observed.clients.len() {
            self.check_client(observed, number, &expected)?;
        }

        let count =
            |outcome| metric_value(metrics, "messages_total", &[("outcome", outcome)]) as usize;
        let mut accounted = count("delivered") + count("gone");
        for reason in
            ["too_large", "expired", "attempts_exhausted", "superseded", "overflow", "disconnected"]
        {
            let logged = observed.dropped.values().filter(|it| *it == reason).count();
            ensure(count(reason) == logged, || {
                format!("{logged} drops are logged as {reason}, {} are counted", count(reason))
            })?;
            ensure(logged == 0 || settings.allows_drop(reason), || {
                format!("{logged} drops as {reason}, which the policy does not allow")
            })?;
            accounted += logged;
        }
        ensure(accounted == expected.len(), || {
            format!("{accounted} of {} messages are accounted for", expected.len())
        })
    }

    /// Checks that a client received its messages in order, except those that were dropped.
    fn check_client(
        &self,
        observed: &Observations,
        number: usize,
        expected: &BTreeSet<(usize, u32)>,
    ) -> Result<(), String> {
        let client = &observed.clients[number];
        let Client { id, group, received, .. } = client;
        ensure(received.is_sorted(), || format!("{id} received {received:?}"))?;
        let expected: BTreeSet<_> =
            expected.iter().filter(|(client, _)| *client == number).map(|(_, n)| *n).collect();
        let delivered: BTreeSet<_> = received.iter().copied().collect();
        ensure(delivered.is_subset(&expected), || {
            format!("{id} received {delivered:?}, expected {expected:?}")
        })?;
        let is_of_group = |n: &u32| self.records[*n as usize - 1].1 == *group;
        ensure(expected.iter().all(is_of_group), || format!("{id} was found for another group"))?;
        let is_dropped = |n: &u32| observed.dropped.contains_key(&(number, *n));
        let missing: Vec<_> = expected.difference(&delivered).filter(|n| !is_dropped(n)).collect();
        let is_closed = client.behavior == Behavior::Closed;
        ensure(is_closed || missing.is_empty(), || format!("{id} lacks {missing:?}"))?;
        if client.was_always_responsive {
            let dropped: Vec<_> = expected.iter().filter(|n| is_dropped(n)).collect();
            ensure(dropped.is_empty(), || format!("{id} always responded and lost {dropped:?}"))?;
            ensure(received.len() == delivered.len(), || {
                format!("{id} always responded and received {received:?}")
            })?;
        }
        // A superseded message has a newer one for the same item.
        for (&(client, n), reason) in &observed.dropped {
            let item = |n: u32| self.records[n as usize - 1].0;
            let is_newer = |it: &u32| *it > n && item(*it) == item(n);
            if client == number && reason == "superseded" {
                ensure(expected.iter().any(is_newer), || {
                    format!("{id}: the newest message {n} was superseded")
                })?;
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, error: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(error()) }
}

async fn run_seed(seed: u64, observed: SharedObservations) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let settings = Settings::draw(&mut rng);
    let streams = Arc::new(FakeStreams::new(1));
    streams.open("only", None);
    let table = Arc::new(RecordingTable(FakeConnections::new(1_000), observed.clone()));
    let store = Arc::<MemoryStore>::default();
    let backends = Backends {
        streams: streams.clone(),
        connections: table.clone(),
        gateway: Arc::new(ScriptedGateway(observed.clone())),
        checkpoints: store.clone(),
        dead_letters: None,
    };
    let (stop, metrics) = (CancellationToken::new(), Metrics::default());
    let (config, mut health) = worker_config("holder", InitialPosition::Latest, &metrics);
    let config = settings.apply(config, seed);
    let stopped = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
    let is_reading = health.wait_for(|it| it.phase == Phase::Reading).await;
    is_reading.map_err(|_| "the worker does not read".to_owned())?;

    let mut run = Run { settings, rng, observed, streams, table, records: vec![] };
    (0..settings.clients).for_each(|_| run.connect());
    for _ in 0..settings.steps {
        run.step();
        let max_pause = [50, 1_000, 20_000][run.rng.usize(..3)];
        sleep(Duration::from_millis(run.rng.u64(..max_pause))).await;
    }
    run.recover();
    run.append_record();
    let last = Some(Position::After(sequence_number(run.records.len() as u32)));
    let settled = || store.checkpoint().and_then(|it| it.shards.get(&shard_id("only")).cloned());
    let started = Instant::now();
    while settled() != last {
        ensure(started.elapsed() < SETTLE_TIMEOUT, || {
            format!("settled only through {:?}, {settings:#?}", settled())
        })?;
        sleep(Duration::from_millis(250)).await;
    }
    stop.cancel();
    worker.await.map_err(|_| "the worker panicked".to_owned())?;
    run.check(&metrics).map_err(|error| format!("{error}\n{settings:#?}"))
}

#[test]
fn accounts_for_every_message() {
    let seed = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match seed("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seed("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let observed = SharedObservations::default();
        let _subscriber = tracing::subscriber::set_default(DropRecorder(observed.clone()));
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        if let Err(error) = runtime.unwrap().block_on(run_seed(seed, observed.clone())) {
            panic!(
                "seed {seed}: {error}\nreplay it: SEED={seed} cargo test --test message_accounting"
            );
        }
    }
}
