//! Connections and channels as operators see and change them.
//!
//! A shard is asked for the ids first and then for some rows at a time, so that a list of a hundred thousand stops nobody.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wootz_hub::Target;
use wootz_protocol::CloseCode;
use wootz_runner::ConnectionId;

use super::answer::{Answer, Body, Failure, json as answer_json, nothing, with_type};
use crate::connection::Ending;
use crate::push::Pusher;
use crate::push::channels::JoinError;
use crate::shard::Shard;

/// Rows that a shard makes at once.
const ROWS: usize = 256;

/// Parts of a list that wait for a client to read.
const PARTS: usize = 4;

/// Which connections are wanted; all conditions have to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) user: Option<Arc<str>>,
    pub(super) session: Option<Arc<str>>,
    pub(super) channel: Option<Arc<str>>,
}

/// An id as it is written everywhere: 32 hexadecimal digits.
pub(super) fn parse_id(text: &str) -> Option<u128> {
    let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { u128::from_str_radix(text, 16).ok() } else { None }
}

impl Filter {
    /// The narrowest index to begin with.
    fn target(&self) -> Target {
        let of = |name: &Option<Arc<str>>| name.as_ref().map(Arc::clone);
        (of(&self.session).map(Target::Session))
            .or_else(|| of(&self.user).map(Target::User))
            .or_else(|| of(&self.channel).map(Target::Channel))
            .unwrap_or(Target::All)
    }

    fn ids(&self, shard: &Shard) -> Vec<u128> {
        let hub = shard.hub.borrow();
        let mut ids = Vec::new();
        hub.visit(&self.target(), |view| {
            if self.user.is_none() || view.user == self.user.as_ref() {
                ids.push(view.id);
            }
        });
        ids
    }

    /// Rows of those that are still there.
    fn rows(&self, shard: &Shard, ids: &[u128]) -> Vec<Value> {
        let (hub, now) = (shard.hub.borrow(), shard.seconds());
        let views = ids.iter().filter_map(|id| hub.view(*id));
        let wanted = views.filter(|view| self.channel.as_ref().is_none_or(|channel| view.channels.contains(channel)));
        let row = |view: wootz_hub::View<'_, crate::connection::Mailbox>| {
            let caller = view.mailbox.caller();
            let channels: Vec<&str> = view.channels.iter().map(|channel| &**channel).collect();
            json!({
                "id": caller.id.to_string(),
                "user": view.user.map(|user| &**user),
                "address": caller.remote.map(|remote| remote.to_string()),
                "http": if view.mailbox.http2_stream().is_some() { "2" } else { "1.1" },
                "age_seconds": now.saturating_sub(view.mailbox.opened_at()),
                "queued_bytes": view.mailbox.outbox().queued_bytes(),
                "channels": channels,
            })
        };
        wanted.map(row).collect()
    }
}

/// `GET /v1/connections`: a list that is made while it is read.
pub(super) fn list(pusher: &Pusher, filter: Filter) -> Answer {
    let (sender, parts) = mpsc::channel(PARTS);
    let pusher = pusher.clone();
    tokio::task::spawn_local(async move {
        // A client that has gone needs no more rows.
        let _ = send_rows(&pusher, filter, &sender).await;
    });
    with_type(StatusCode::OK, "application/json", Body::Parts(parts))
}

async fn send_rows(
    pusher: &Pusher,
    filter: Filter,
    parts: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    parts.send(Bytes::from_static(b"{\"connections\":[")).await?;
    let mut separator = "\n";
    for shard in 0..pusher.shards() {
        let wanted = filter.clone();
        let ids = pusher.ask_one(shard, move |shard| wanted.ids(shard)).await.unwrap_or_default();
        for some in ids.chunks(ROWS) {
            let (wanted, some) = (filter.clone(), some.to_vec());
            let rows = pusher.ask_one(shard, move |shard| wanted.rows(shard, &some)).await.unwrap_or_default();
            let mut text = String::new();
            for row in rows {
                text.push_str(separator);
                text.push_str(&row.to_string());
                separator = ",\n";
            }
            if !text.is_empty() {
                parts.send(text.into()).await?;
            }
        }
    }
    parts.send(Bytes::from_static(b"\n]}\n")).await
}

/// `DELETE /v1/connections/{id}`.
pub(super) async fn disconnect(pusher: &Pusher, id: u128, code: CloseCode) -> Result<Answer, Failure> {
    let found = pusher.ask(move |shard: &Rc<Shard>| {
        let hub = shard.hub.borrow();
        let mailbox = hub.find(id)?;
        mailbox.end(Ending::Now(code, "closed by the operator"));
        Some(())
    });
    match found.await.into_iter().flatten().next() {
        Some(()) => Ok(nothing()),
        None => Err(gone(id)),
    }
}

fn gone(id: u128) -> Failure {
    let message = format!("there is no connection {}", ConnectionId(id));
    Failure::new(StatusCode::NOT_FOUND, "no_such_connection", message)
}

/// Into a channel or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Leave,
}

/// `PUT` and `DELETE /v1/connections/{id}/channels/{name}`. `of_call`: only as long as this call of the connection runs.
pub(super) async fn change_channel(
    pusher: &Pusher,
    id: u128,
    channel: Arc<str>,
    change: Change,
    of_call: Option<u64>,
) -> Result<Answer, Failure> {
    let changed = pusher.ask(move |shard: &Rc<Shard>| {
        // Only the shard that has it says anything.
        let current_call = shard.hub.borrow().find(id).map(|mailbox| mailbox.current_call())?;
        if of_call.is_some_and(|call| call < current_call) {
            return Some(Err(None));
        }
        let changed = match change {
            Change::Join => shard.join_channel(id, &channel),
            Change::Leave => shard.leave_channel(id, &channel),
        };
        Some(changed.map_err(Some))
    });
    match changed.await.into_iter().flatten().next() {
        Some(Ok(())) => Ok(nothing()),
        Some(Err(None)) => {
            Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", "the call that this token is for has ended"))
        }
        None | Some(Err(Some(JoinError::Gone))) => Err(gone(id)),
        Some(Err(Some(error @ (JoinError::TooManyOfConnection | JoinError::TooManyInAll)))) => {
            Err(Failure::new(StatusCode::CONFLICT, "too_many_channels", error.to_string()))
        }
    }
}

/// `GET /v1/channels`: names and how many connections are in each.
pub(super) async fn channels(pusher: &Pusher) -> Answer {
    let of_shards = pusher.ask(|shard: &Rc<Shard>| -> Vec<(Arc<str>, usize)> {
        shard.hub.borrow().channels().map(|(name, connections)| (Arc::clone(name), connections)).collect()
    });
    let mut channels = BTreeMap::<Arc<str>, usize>::new();
    for (name, connections) in of_shards.await.into_iter().flatten() {
        *channels.entry(name).or_default() += connections;
    }
    let row = |(name, connections): (Arc<str>, usize)| json!({"name": *name, "connections": connections});
    answer_json(StatusCode::OK, &json!({"channels": channels.into_iter().map(row).collect::<Vec<_>>()}))
}

/// `GET /v1/channels/{name}`: who is in it. A channel that nobody is in is one with nobody.
pub(super) async fn channel(pusher: &Pusher, channel: Arc<str>) -> Answer {
    let mut users = BTreeMap::<Arc<str>, usize>::new();
    let (mut connections, mut guests) = (0_usize, 0_usize);
    let filter = Filter { channel: Some(Arc::clone(&channel)), ..Filter::default() };
    for shard in 0..pusher.shards() {
        let wanted = filter.clone();
        let ids = pusher.ask_one(shard, move |shard| wanted.ids(shard)).await.unwrap_or_default();
        for some in ids.chunks(ROWS) {
            let (some, channel) = (some.to_vec(), Arc::clone(&channel));
            let found = pusher.ask_one(shard, move |shard| users_in(shard, &some, &channel)).await;
            for user in found.unwrap_or_default() {
                connections += 1;
                match user {
                    Some(user) => *users.entry(user).or_default() += 1,
                    None => guests += 1,
                }
            }
        }
    }
    let row = |(user, connections): (Arc<str>, usize)| json!({"user": *user, "connections": connections});
    let users: Vec<Value> = users.into_iter().map(row).collect();
    let body = json!({"name": *channel, "connections": connections, "guests": guests, "users": users});
    answer_json(StatusCode::OK, &body)
}

/// The users of those connections that are still in a channel.
fn users_in(shard: &Shard, ids: &[u128], channel: &Arc<str>) -> Vec<Option<Arc<str>>> {
    let hub = shard.hub.borrow();
    let views = ids.iter().filter_map(|id| hub.view(*id)).filter(|view| view.channels.contains(channel));
    views.map(|view| view.user.cloned()).collect()
}
