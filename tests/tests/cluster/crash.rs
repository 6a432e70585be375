//! Nothing lost over a crash: the operator is killed and started again while changes come in, at
//! every moment that hurts, and each start goes on exactly where the checkpoint ends.

mod story;
mod walk;

use anyhow::{Result, ensure};
use story::Story;
use stream_notifier_tests::proxy::{Recorded, Reply};

use crate::fixture::{Checkpoint, LIMIT, is_later};

#[tokio::test]
async fn every_change_arrives_whenever_the_operator_is_killed() -> Result<()> {
    let mut story = Story::begin().await?;

    // Before the first checkpoint: the client is told, and the operator never learns of it.
    let held = story.world.proxy.hold_answer(Recorded::is_post_to_connection);
    let operator = story.start().await?;
    let (written, told) = tokio::join!(story.write(20), story.told_more(1));
    written.and(told)?;
    operator.kill().await?;
    held.release();
    let left = story.ended().await?;
    ensure!(left.after()? == "latest", "{left:?}");

    // Between a post that was answered and its checkpoint, while changes go on coming in.
    let mut behind = 0;
    for _ in 0..2 {
        let before = story.left()?;
        let operator = story.start().await?;
        story.write(5).await?;
        let what = "a later position";
        let moved = |now: &str| is_later(now, &before);
        story.checkpointed(what, |now| now.after().is_ok_and(moved)).await?;
        let crash = async {
            story.told_more(3).await?;
            operator.kill().await
        };
        let (written, killed) = tokio::join!(story.write(35), crash);
        written.and(killed.map(drop))?;
        let left = story.ended().await?;
        ensure!(moved(left.after()?), "{left:?} after {before}");
        if is_later(&story.last_number()?, left.after()?) {
            behind += 1;
        }
    }
    ensure!(behind > 0, "no kill came between a post and its checkpoint");

    // While a post does not get through, the checkpoint waits for it.
    let operator = story.start().await?;
    story.write(1).await?;
    story.told_last().await?;
    let told = story.last_number()?;
    let reply = Reply::gateway_error(500, "InternalServerError", "")?;
    let failing = story.world.proxy.answer(reply, Recorded::is_post_to_connection);
    story.write(9).await?;
    failing.caught(1, LIMIT).await?;
    let there = |now: &Checkpoint| now.after().is_ok_and(|now| !is_later(&told, now));
    let stored = story.checkpointed("the position of what was told", there).await?;
    ensure!(stored.after()? == told, "{stored:?} after {told}");
    operator.kill().await?;
    failing.release();
    let left = story.ended().await?;
    ensure!(left.after()? == told, "{left:?} after {told}");

    // Between the claim and the first read.
    let (before, epoch) = (story.left()?, story.epoch());
    let held = story.world.proxy.hold(|request| request.is("GetShardIterator"));
    let operator = story.world.operator()?;
    story.checkpointed("a claim", |now| now.epoch > epoch).await?;
    operator.kill().await?;
    held.release();
    let left = story.ended().await?;
    ensure!(left.after()? == before, "{left:?} after {before}");

    // Told to stop, it finishes what is under way: nothing is repeated.
    let operator = story.start().await?;
    let stop = async {
        story.told_more(10).await?;
        operator.stop().await
    };
    let (written, stopped) = tokio::join!(story.write(60), stop);
    written.and(stopped)?;
    let left = story.stopped().await?;
    ensure!(left.after()? == story.last_number()?, "{left:?}");

    let operator = story.start().await?;
    story.write(30).await?;
    story.told_last().await?;
    operator.stop().await?;
    let left = story.stopped().await?;
    ensure!(left.after()? == story.last_number()?, "{left:?}");
    story.verify(200).await
}
