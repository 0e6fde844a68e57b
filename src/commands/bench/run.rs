//! Connects, starts all calls at once, and waits for what they come to.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_types::RpcStatusExt;

use crate::commands::send::reason_name;
use crate::ingress::grpc::client::Dialer;

use super::call::{Call, Requests, Shared};
use super::measured::{Measured, Used};
use super::pace::Timer;
use super::wire::{Answer, Codec};
use super::{PATIENCE, Plan, Pool};
use crate::monitor::process::{Process, Usage};

/// A call that is open and introduced.
struct Open {
    call: Arc<Call>,
    answers: Streaming<Answer>,
}

/// Puts a load on a gateway until it is over or `interrupted` is ready, whose value says by what.
///
/// # Errors
/// When the load cannot begin. What goes wrong later is in [`Measured::failure`].
pub async fn run(
    plan: &Plan,
    pool: &Arc<Pool>,
    interrupted: impl Future<Output = &'static str>,
) -> anyhow::Result<Measured> {
    let process = plan.pid.map(Process::new);
    process.map(Process::usage).transpose()?;
    let shared = Arc::new(Shared::new(plan.clone(), u32::try_from(pool.records_per_message())?)?);
    let open = tokio::time::timeout(PATIENCE, open(&shared, pool));
    let open = open.await.map_err(|_| anyhow!("not all calls were answered within {} s", PATIENCE.as_secs()))??;
    let calls: Vec<Arc<Call>> = open.iter().map(|open| Arc::clone(&open.call)).collect();
    shared.begin();
    calls.iter().for_each(|call| call.start());
    let looked = async { look_after_warm_up(&shared, process).await };
    let ended = async {
        tokio::select! {
            ended = answers(open) => ended,
            ended = pace(&shared, &calls) => ended,
            stuck = stuck(&shared) => Err(stuck),
            signal = interrupted => Err(anyhow!("interrupted by {signal}")),
        }
    };
    let (before, failure) = during(looked, ended).await;
    calls.iter().for_each(|call| call.give_up());
    let used = match (before.transpose()?.flatten(), process) {
        (Some(before), Some(process)) => process.usage().ok().map(|after| Used::between(before, after)),
        _ => None,
    };
    let failure = failure.err().map(|error| format!("{error:#}"));
    Ok(shared.tally().measured(plan.schedule.warm_up, used, failure))
}

/// Runs two things until the second ends. The first may have ended before.
async fn during<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (Option<A>, B) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    tokio::select! {
        ended = &mut second => (None, ended),
        first = &mut first => (Some(first), second.await),
    }
}

/// What the process had used when the warm-up was over.
async fn look_after_warm_up(shared: &Shared, process: Option<Process>) -> anyhow::Result<Option<Usage>> {
    tokio::time::sleep(shared.plan.schedule.warm_up).await;
    process.map(Process::usage).transpose()
}

/// Opens all calls, each with a producer that the gateway knows then.
async fn open(shared: &Arc<Shared>, pool: &Arc<Pool>) -> anyhow::Result<Vec<Open>> {
    let plan = &shared.plan;
    let mut channels = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let channel = plan.dialer.channel(&plan.endpoint).await;
        channels.push(channel?);
    }
    let mut opening = JoinSet::new();
    for (number, channel) in channels.iter().cycle().take(plan.calls).enumerate() {
        let call = Arc::new(Call::new(Arc::clone(shared), number));
        opening.spawn(open_one(call, channel.clone(), plan.dialer.clone(), Arc::clone(pool)));
    }
    let mut open = Vec::with_capacity(plan.calls);
    while let Some(opened) = opening.join_next().await {
        open.push(opened??);
    }
    open.sort_by_key(|open| open.call.number());
    Ok(open)
}

async fn open_one(call: Arc<Call>, channel: Channel, dialer: Dialer, pool: Arc<Pool>) -> anyhow::Result<Open> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/bailiwick.v1.Ingest/Publish");
    let requests = dialer.call(Requests(Arc::clone(&call)))?;
    let mut answers = grpc.streaming(requests, path, Codec(pool)).await?.into_inner();
    let introduced = answers.message().await?.context("the gateway ended a call")?;
    refused_as_a_whole(&introduced)?;
    Ok(Open { call, answers })
}

/// At a rate: lets messages go when they are due. Ends only when it fails.
async fn pace(shared: &Shared, calls: &[Arc<Call>]) -> anyhow::Result<()> {
    let schedule = &shared.plan.schedule;
    let Some(messages) = schedule.messages() else { return std::future::pending().await };
    let timer = Timer::new()?;
    let mut turns = calls.iter().cycle();
    let mut given = 0;
    while given < messages {
        let due = schedule.due_by(shared.now());
        turns.by_ref().take(usize::try_from(due.saturating_sub(given))?).for_each(|call| call.due());
        given = due.max(given);
        let next = schedule.due(given).context("the next message is not due in any time")?;
        timer.sleep(next.saturating_sub(shared.now())).await?;
        // The runtime serves the sockets between two turns, also when the next message is due already.
        tokio::task::yield_now().await;
    }
    calls.iter().for_each(|call| call.finish());
    std::future::pending().await
}

/// Takes the answers of all calls until they are over.
async fn answers(open: Vec<Open>) -> anyhow::Result<()> {
    let mut reading: JoinSet<anyhow::Result<()>> = open.into_iter().map(answers_of).collect();
    while let Some(ended) = reading.join_next().await {
        ended??;
    }
    Ok(())
}

async fn answers_of(Open { call, mut answers }: Open) -> anyhow::Result<()> {
    while let Some(answer) =
        answers.message().await.map_err(|status| anyhow!("the call ended: {}", status.message()))?
    {
        refused_as_a_whole(&answer)?;
        if !call.answered(&answer) {
            bail!("an answer without a request");
        }
    }
    if call.is_over() { Ok(()) } else { Err(anyhow!("the gateway ended a call")) }
}

/// A message that is refused as a whole ends the load: what follows would be refused likewise, or as out of order.
fn refused_as_a_whole(answer: &Answer) -> anyhow::Result<()> {
    let Some(status) = &answer.error else { return Ok(()) };
    let reason = status.get_details_error_info().map(|info| reason_name(&info.reason)).unwrap_or_default();
    bail!("the gateway refuses a message as a whole, {reason}: {}", status.message)
}

/// Ends when no answer has come for long.
async fn stuck(shared: &Shared) -> anyhow::Error {
    let mut known = None;
    loop {
        let answers = shared.tally().answers;
        if known == Some(answers) {
            return anyhow!("no answer for {} s", PATIENCE.as_secs());
        }
        known = Some(answers);
        // At a low rate, it is no wonder that no answer comes before the next message is due.
        let between = shared.plan.schedule.due(1).unwrap_or_default();
        tokio::time::sleep(PATIENCE + between).await;
    }
}
