//! Whatever connections do, every message of every change is accounted for: it was delivered, its
//! connection is gone, or it was given up and counted, for a reason that the policy knows. Changes,
//! connections, what they answer, policies and bounds are drawn from a seed.
//!
//! `SEEDS=10000` runs as many, `SEED=7` that one.

mod neighbours;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use neighbours::{Client, Listener, MOODS, Mood, Moody, Remembering, Seen, Shared, id};
use stream_notifier::delivery::{
    DeliveryLimits, DeliveryPolicy, PostRateLimiter, SlowClientAction,
};
use stream_notifier::model::Position;
use stream_notifier::streams::InitialPosition;
use stream_notifier::telemetry::{Metrics, Phase};
use stream_notifier::timing::JitterRng;
use stream_notifier::worker::{Backends, WorkerConfig, run_worker};
use stream_notifier_tests::fakes::{
    FakeConnections, FakeStreams, MemoryStore, change, job, number, shard_id,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const SEEDS: u64 = 300;

/// How long everything may take until it is settled, once nothing is wrong any more.
const LIMIT: Duration = Duration::from_secs(900);

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
struct Plan {
    policy: DeliveryPolicy,
    max_pages: usize,
    bounds: DeliveryLimits,
    posts_a_second: u32,
    groups: usize,
    items: usize,
    clients: usize,
    steps: usize,
}

impl Plan {
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
            bounds: DeliveryLimits {
                memory_kib: [2, 8, 64][rng.usize(..3)],
                max_queued_messages: [1, 5, 65_536][rng.usize(..3)],
                connection_kib: [1, 3, 512][rng.usize(..3)],
                max_posts: [1, 3, 1_024][rng.usize(..3)],
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
            "attempts_exhausted" => policy.max_attempts.is_some(),
            "superseded" => policy.slow_client == SlowClientAction::Drop || has_bound,
            "overflow" => has_bound,
            "disconnected" => policy.slow_client == SlowClientAction::Disconnect,
            _ => false,
        }
    }
}

/// A run while it goes on.
struct Story {
    plan: Plan,
    rng: Rng,
    seen: Shared,
    streams: Arc<FakeStreams>,
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
        ensure(most <= plan.bounds.max_posts, || format!("{most} posts at once"))?;

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

        let count = |outcome: &str| {
            let label = format!("outcome=\"{outcome}\"}} ");
            let mut lines = metrics.lines().filter(|it| it.contains("notifier_messages_total"));
            // Every counter is there from the start.
            let line = lines.find(|line| line.contains(&label)).expect(&label);
            line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
        };
        let mut accounted = count("delivered") + count("gone");
        for why in
            ["too_large", "expired", "attempts_exhausted", "superseded", "overflow", "disconnected"]
        {
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
    let streams = Arc::new(FakeStreams::new(1));
    streams.open("only", None);
    let table = Arc::new(Remembering(FakeConnections::new(1_000), seen.clone()));
    let store = Arc::<MemoryStore>::default();
    let backends = Backends {
        streams: streams.clone(),
        connections: table.clone(),
        gateway: Arc::new(Moody(seen.clone())),
        checkpoints: store.clone(),
        dead_letters: None,
    };
    let (stop, metrics) = (CancellationToken::new(), Metrics::default());
    let (job, mut pictures) = job("holder", InitialPosition::Latest, &metrics);
    let mut job = WorkerConfig {
        post_limiter: Arc::new(PostRateLimiter::new(plan.posts_a_second)),
        rng: Arc::new(JitterRng::seeded(seed)),
        ..job
    };
    (job.delivery.policy, job.delivery.limits) = (plan.policy, plan.bounds);
    job.consumer.poll_interval = Duration::from_millis(250);
    job.consumer.max_pages = plan.max_pages;
    let told = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
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
