//! A command whose streams are the daemon's. Nothing of them is here but the line by which they
//! were taken, and that rules: the command does not outlive it.

use std::sync::Arc;

use shim_api::Streams;
use tokio::sync::Notify;

use super::Command;
use crate::handover::Offer;

/// What a killed command is said to have ended with, if its end is not seen in time.
const KILLED: i32 = 128 + 9;

/// Follows the command to its end, which comes when it ends by itself, when `kill` is told, when
/// its streams are not taken in time, and when their taker goes.
pub async fn follow(mut command: Command, streams: Streams, offer: Offer, kill: Arc<Notify>) {
    let line = tokio::select! {
        line = offer.taken() => line,
        () = kill.notified() => None,
    };
    let taken = match line {
        Some(line) => line.give(&streams).await.ok().map(|()| line),
        None => None,
    };
    // Else the command would not see the taker's ends closed.
    drop(streams);
    let Some(line) = taken else {
        command.kill().await;
        return;
    };
    let ended = tokio::select! {
        biased;
        ended = command.ended() => ended,
        () = kill.notified() => command.kill().await,
        () = line.closed() => command.kill().await,
    };
    line.end(ended.map_or(KILLED, |ended| ended.code)).await;
}
