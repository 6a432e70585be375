//! Whatever connections do, every message of every change is accounted for: it was delivered, its
//! connection is gone, or it was given up and counted, for a reason that the policy knows. Changes,
//! connections, what they answer, policies and bounds are drawn from a seed.
//!
//! `SEEDS=10000` runs as many, `SEED=7` that one.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use stream_notifier::backoff::Random;
use stream_notifier::delivery::{
    Answer, Bounds, Connections, ConnectionsError, Gateway, Policy, PostLimits, RowPage, Segment,
    SlowClient, TableDescription,
};
use stream_notifier::record::{AttributeValue, Item, KeyNames, Position};
use stream_notifier::telemetry::{Metrics, Phase};
use stream_notifier::worker::{Begin, Job, Neighbours, work};
use stream_notifier_tests::scripted::{
    MemoryStore, ScriptedConnections, ScriptedStreams, change, job, number, shard_id,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SEEDS: u64 = 300;

/// How long everything may take until it is settled, once nothing is wrong any more.
const LIMIT: Duration = Duration::from_secs(900);

/// How a connection answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Its buffer is full.
    Full,
    Failing,
    /// It has the message, and its answer is lost.
    Mute,
    /// Nothing arrives, and there is no answer for as long as the client waits.
    Hanging,
    Gone,
}

const MOODS: [Mood; 6] =
    [Mood::Well, Mood::Full, Mood::Failing, Mood::Mute, Mood::Hanging, Mood::Gone];

#[derive(Clone, Debug)]
struct Client {
    id: String,
    group: usize,
    mood: Mood,
    /// Whether it never was anything but well.
    is_always_well: bool,
    /// The changes that it was told of, in order.
    received: Vec<u32>,
    is_posted_to: bool,
    disconnected: bool,
}

/// What the gateway, the table and the log have seen.
#[derive(Debug, Default)]
struct Seen {
    clients: Vec<Client>,
    /// Whether nobody may post.
    is_forbidden: bool,
    under_way: usize,
    most_under_way: usize,
    two_for_one: bool,
    /// By group, what each lookup found, in order.
    found: BTreeMap<usize, Vec<Vec<usize>>>,
    /// Connection and change of what was given up, and why.
    dropped: BTreeMap<(usize, u32), String>,
}

type Shared = Arc<Mutex<Seen>>;

fn id(client: usize) -> String {
    // What logs have of an id is enough to tell them apart.
    format!("{client:06}L0SM9cOFvHc=")
}

fn client(id: &str) -> usize {
    id[..6].parse().unwrap()
}

fn group(value: &AttributeValue) -> usize {
    let AttributeValue::S(text) = value else { panic!("{value:?}") };
    text.strip_prefix("group-").unwrap().parse().unwrap()
}

/// Connections in their moods.
#[derive(Debug)]
struct Moody(Shared);

impl Gateway for Moody {
    async fn post(&self, connection: &str, message: &Bytes) -> Answer {
        let to = client(connection);
        let message: serde_json::Value = serde_json::from_slice(message).unwrap();
        let change: u32 = message["value"].as_str().unwrap().parse().unwrap();
        let (mood, is_forbidden) = {
            let seen = &mut *self.0.lock().unwrap();
            seen.under_way += 1;
            seen.most_under_way = seen.most_under_way.max(seen.under_way);
            seen.two_for_one |= std::mem::replace(&mut seen.clients[to].is_posted_to, true);
            (seen.clients[to].mood, seen.is_forbidden)
        };
        sleep(Duration::from_millis(if mood == Mood::Hanging { 15_000 } else { 20 })).await;
        let seen = &mut *self.0.lock().unwrap();
        seen.under_way -= 1;
        let client = &mut seen.clients[to];
        client.is_posted_to = false;
        if !is_forbidden && matches!(mood, Mood::Well | Mood::Mute) {
            client.received.push(change);
        }
        let status = |status| Answer::Status { status, names_connection: false };
        match mood {
            _ if is_forbidden => status(403),
            Mood::Well => status(200),
            Mood::Full => status(429),
            Mood::Failing => status(500),
            Mood::Mute | Mood::Hanging => Answer::NoAnswer,
            Mood::Gone => status(410),
        }
    }

    async fn disconnect(&self, connection: &str) -> Answer {
        let client = &mut self.0.lock().unwrap().clients[client(connection)];
        (client.disconnected, client.mood) = (true, Mood::Gone);
        Answer::Status { status: 204, names_connection: false }
    }
}

/// A table that remembers what each lookup found.
#[derive(Debug)]
struct Remembering(ScriptedConnections, Shared);

impl Connections for Remembering {
    async fn describe(&self) -> Result<TableDescription, ConnectionsError> {
        self.0.describe().await
    }

    async fn query(
        &self,
        value: &AttributeValue,
        attributes: &[String],
        start: Option<&Item>,
    ) -> Result<RowPage, ConnectionsError> {
        let page = self.0.query(value, attributes, start).await?;
        let id = |row: &Item| match row.get("connection_id") {
            Some(AttributeValue::S(id)) => client(id),
            other => panic!("{other:?}"),
        };
        let found = page.rows.iter().map(id).collect();
        self.1.lock().unwrap().found.entry(group(value)).or_default().push(found);
        Ok(page)
    }

    async fn scan(
        &self,
        segment: Segment,
        attributes: &[String],
        start: Option<&Item>,
    ) -> Result<RowPage, ConnectionsError> {
        self.0.scan(segment, attributes, start).await
    }

    async fn get(&self, key: &Item) -> Result<Option<Item>, ConnectionsError> {
        self.0.get(key).await
    }

    async fn delete_unchanged(
        &self,
        keys: &KeyNames,
        row: &Item,
    ) -> Result<bool, ConnectionsError> {
        self.0.delete_unchanged(keys, row).await
    }
}

/// Hears which messages are given up.
struct Listener(Shared);

#[derive(Default)]
struct Said {
    connection: String,
    sequence_number: String,
    why: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "connection" => &mut self.connection,
            "sequence_number" => &mut self.sequence_number,
            "why" => &mut self.why,
            _ => return,
        };
        *text = format!("{value:?}").trim_matches('"').to_owned();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let names = |name| metadata.fields().field(name).is_some();
        names("why") && names("connection") && !names("unsaid")
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let change = said.sequence_number[1..].parse().unwrap();
        let message = (client(&said.connection), change);
        let before = self.0.lock().unwrap().dropped.insert(message, said.why);
        assert_eq!(before, None, "{message:?} is given up twice");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
struct Plan {
    policy: Policy,
    bounds: Bounds,
    posts_a_second: u32,
    groups: usize,
    items: usize,
    clients: usize,
    steps: usize,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let slow_clients = [SlowClient::Wait, SlowClient::Drop, SlowClient::Disconnect];
        Self {
            policy: Policy {
                longest_try: Duration::from_secs([3, 20, 300][rng.usize(..3)]),
                most_attempts: rng.bool().then(|| rng.u32(1..=4)),
                slow_client: slow_clients[rng.usize(..3)],
            },
            bounds: Bounds {
                pages: [1, 16][rng.usize(..2)],
                memory_kib: [2, 8, 64][rng.usize(..3)],
                waiting: [1, 5, 65_536][rng.usize(..3)],
                connection_kib: [1, 3, 512][rng.usize(..3)],
                posts: [1, 3, 1_024][rng.usize(..3)],
            },
            posts_a_second: [20, 1_000_000][rng.usize(..2)],
            groups: rng.usize(1..=2),
            items: rng.usize(1..=5),
            clients: rng.usize(1..=5),
            steps: rng.usize(5..=40),
        }
    }

    /// Whether a message may be given up for this reason.
    fn allows(&self, why: &str) -> bool {
        let Self { policy, bounds, .. } = self;
        let has_bound = bounds.connection_kib < bounds.memory_kib;
        match why {
            "expired" => true,
            "attempts" => policy.most_attempts.is_some(),
            "superseded" => policy.slow_client == SlowClient::Drop || has_bound,
            "overflow" => has_bound,
            "disconnected" => policy.slow_client == SlowClient::Disconnect,
            _ => false,
        }
    }
}

/// A run while it goes on.
struct Story {
    plan: Plan,
    rng: Rng,
    seen: Shared,
    streams: Arc<ScriptedStreams>,
    table: Arc<Remembering>,
    /// The item and the group of each change.
    changes: Vec<(usize, usize)>,
}

impl Story {
    fn connect(&mut self) {
        let mut seen = self.seen.lock().unwrap();
        let number = seen.clients.len();
        let group = self.rng.usize(..self.plan.groups);
        self.table.0.put_new(&id(number), &format!("group-{group}"));
        seen.clients.push(Client {
            id: id(number),
            group,
            mood: Mood::Well,
            is_always_well: true,
            received: vec![],
            is_posted_to: false,
            disconnected: false,
        });
    }

    fn change(&mut self) {
        let item = self.rng.usize(..self.plan.items);
        let group = item % self.plan.groups;
        self.changes.push((item, group));
        let n = self.changes.len() as u32;
        let change = change(n, &format!("item-{item}"), &format!("group-{group}"));
        self.streams.append("only", change);
    }

    fn step(&mut self) {
        match self.rng.u8(..10) {
            0 if self.seen.lock().unwrap().clients.len() < 8 => self.connect(),
            1 => {
                let is_forbidden = self.rng.u8(..3) == 0;
                self.seen.lock().unwrap().is_forbidden = is_forbidden;
            }
            2..=5 => {
                let mood = MOODS[self.rng.usize(..MOODS.len())];
                let mut seen = self.seen.lock().unwrap();
                let client = self.rng.usize(..seen.clients.len());
                let client = &mut seen.clients[client];
                // Who is gone stays so.
                if client.mood != Mood::Gone {
                    client.mood = mood;
                    client.is_always_well &= mood == Mood::Well;
                }
            }
            _ => (0..self.rng.usize(1..=12)).for_each(|_| self.change()),
        }
    }

    /// Nothing is wrong any more, except that some are gone.
    fn end(&mut self) {
        let mut seen = self.seen.lock().unwrap();
        seen.is_forbidden = false;
        for client in &mut seen.clients {
            if client.mood != Mood::Gone {
                client.mood = Mood::Well;
            }
        }
    }

    /// Looks whether every message is accounted for.
    fn check(&self, metrics: &str) -> Result<(), String> {
        let seen = &*self.seen.lock().unwrap();
        let plan = &self.plan;
        ensure(!seen.two_for_one, || "two posts for one connection at once".to_owned())?;
        let most = seen.most_under_way;
        ensure(most <= plan.bounds.posts, || format!("{most} posts at once"))?;

        // The stream gives one record at a time, so that each has a lookup of its own.
        let mut lookups: BTreeMap<_, _> =
            seen.found.iter().map(|(group, found)| (*group, found.iter())).collect();
        let mut owed = BTreeSet::new();
        for (n, (_, group)) in self.changes.iter().enumerate() {
            let found = lookups.get_mut(group).and_then(Iterator::next);
            let found = found.ok_or_else(|| format!("change {} was never looked up", n + 1))?;
            owed.extend(found.iter().map(|client| (*client, n as u32 + 1)));
        }
        for (client, of) in seen.clients.iter().enumerate() {
            self.check_client(seen, client, of, &owed)?;
        }

        let count = |kind: &str| {
            let kind = format!("kind=\"{kind}\"}} ");
            let mut lines = metrics.lines().filter(|it| it.contains("notifier_messages_total"));
            let line = lines.find(|line| line.contains(&kind));
            line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        };
        let mut accounted = count("delivered") + count("gone");
        for why in [
            "invalid",
            "too_large",
            "expired",
            "attempts",
            "superseded",
            "overflow",
            "disconnected",
        ] {
            let told = seen.dropped.values().filter(|it| *it == why).count();
            ensure(count(why) == told, || format!("{told} {why}, and {} counted", count(why)))?;
            ensure(told == 0 || plan.allows(why), || {
                format!("{told} {why} though the policy has none")
            })?;
            accounted += told;
        }
        ensure(accounted == owed.len(), || {
            format!("{accounted} of {} are accounted for", owed.len())
        })
    }

    /// What a client has is what it should have, in order, but for what was given up.
    fn check_client(
        &self,
        seen: &Seen,
        number: usize,
        of: &Client,
        owed: &BTreeSet<(usize, u32)>,
    ) -> Result<(), String> {
        let Client { id, group, received, .. } = of;
        ensure(received.is_sorted(), || format!("{id} has {received:?}"))?;
        let mine: BTreeSet<_> =
            owed.iter().filter(|(client, _)| *client == number).map(|(_, n)| *n).collect();
        let has: BTreeSet<_> = received.iter().copied().collect();
        ensure(has.is_subset(&mine), || format!("{id} has {has:?} of {mine:?}"))?;
        let of_group = |n: &u32| self.changes[*n as usize - 1].1 == *group;
        ensure(mine.iter().all(of_group), || format!("{id} is told of others' items"))?;
        let is_dropped = |n: &u32| seen.dropped.contains_key(&(number, *n));
        let missing: Vec<_> = mine.difference(&has).filter(|n| !is_dropped(n)).collect();
        let is_there = of.mood != Mood::Gone;
        ensure(!is_there || missing.is_empty(), || format!("{id} lacks {missing:?}"))?;
        // One that always reads has everything, once.
        let lost: Vec<_> = mine.iter().filter(|n| is_dropped(n)).collect();
        ensure(!of.is_always_well || lost.is_empty(), || {
            format!("{id} is well and lost {lost:?}")
        })?;
        let repeats = received.len() - has.len();
        ensure(!of.is_always_well || repeats == 0, || {
            format!("{id} is well and has {received:?}")
        })?;
        // What took the place of another was itself delivered, or given up for another reason.
        for (&(client, n), why) in &seen.dropped {
            let item = |n: u32| self.changes[n as usize - 1].0;
            let is_newer = |it: &&u32| **it > n && item(**it) == item(n);
            if client == number && why == "superseded" {
                ensure(mine.iter().any(|it| is_newer(&it)), || format!("{id}: {n} is the newest"))?;
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

async fn run(seed: u64, seen: Shared) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::draw(&mut rng);
    let streams = Arc::new(ScriptedStreams::new(1));
    streams.open("only", None);
    let table = Arc::new(Remembering(ScriptedConnections::new(1_000), seen.clone()));
    let store = Arc::<MemoryStore>::default();
    let neighbours = Neighbours {
        streams: streams.clone(),
        connections: table.clone(),
        gateway: Arc::new(Moody(seen.clone())),
        store: store.clone(),
    };
    let (stop, metrics) = (CancellationToken::new(), Metrics::default());
    let (job, mut pictures) = job("holder", Begin::Latest, &metrics);
    let job = Job {
        policy: plan.policy,
        bounds: plan.bounds,
        post_limits: Arc::new(PostLimits::new(plan.posts_a_second)),
        random: Arc::new(Random::seeded(seed)),
        poll_interval: Duration::from_millis(250),
        ..job
    };
    let told = stop.clone();
    let worker = tokio::spawn(async move { work(&neighbours, &job, &told).await });
    let is_reading = pictures.wait_for(|it| it.phase == Phase::Reading).await;
    is_reading.map_err(|_| "it does not read".to_owned())?;

    let mut story = Story { plan, rng, seen, streams, table, changes: vec![] };
    (0..plan.clients).for_each(|_| story.connect());
    for _ in 0..plan.steps {
        story.step();
        let longest = [50, 1_000, 20_000][story.rng.usize(..3)];
        sleep(Duration::from_millis(story.rng.u64(..longest))).await;
    }
    story.end();
    story.change();
    let last = Some(Position::After(number(story.changes.len() as u32)));
    let settled = || store.checkpoint().and_then(|it| it.shards.get(&shard_id("only")).cloned());
    let begun = Instant::now();
    while settled() != last {
        ensure(begun.elapsed() < LIMIT, || format!("not settled: {:?}, {plan:#?}", settled()))?;
        sleep(Duration::from_millis(250)).await;
    }
    stop.cancel();
    worker.await.map_err(|_| "it panicked".to_owned())?;
    story.check(&metrics.encode()).map_err(|how| format!("{how}\n{plan:#?}"))
}

#[test]
fn every_message_is_delivered_or_accounted_for() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let seen = Shared::default();
        let _listening = tracing::subscriber::set_default(Listener(seen.clone()));
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let ended = runtime.unwrap().block_on(run(seed, seen.clone()));
        if let Err(how) = ended {
            panic!("seed {seed}: {how}\nreplay it: SEED={seed} cargo test --test every_message");
        }
    }
}
