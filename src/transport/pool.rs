//! Connections kept for the next message to the same destination.
//!
//! A kept connection is taken out by the delivery that uses it, so nobody shares one. While any are kept, one task looks
//! after them and closes what was idle for too long; it ends with the last of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::DestinationKey;
use super::session::Session;
use crate::config::Transport;

/// Connections kept, all destinations together: each is a file descriptor here and a process there.
const IDLE_MAX: usize = 500;
/// The reaper looks at least and at most so often.
const REAP_EVERY_MAX: Duration = Duration::from_secs(1);
const REAP_EVERY_MIN: Duration = Duration::from_millis(20);

/// Idle connections by destination.
#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    idle: HashMap<DestinationKey, Vec<Idle>>,
    count: usize,
    reaping: bool,
}

struct Idle {
    session: Session,
    /// The transport that it was opened for. After a reload a transport of the same name may be another one.
    transport: Arc<Transport>,
    until: Instant,
}

impl Pool {
    /// A connection to a destination that still looks alive; the one used last, for the others may then go.
    pub(super) async fn take(
        &self,
        key: &DestinationKey,
        transport: &Arc<Transport>,
        good: impl Fn(&Session) -> bool,
    ) -> Option<Session> {
        loop {
            let idle = self.pop(key)?;
            let mut session = idle.session;
            let ours = Arc::ptr_eq(&idle.transport, transport) && good(&session);
            if ours && Instant::now() < idle.until && session.looks_alive().await {
                return Some(session);
            }
            session.quit().await;
        }
    }

    fn pop(&self, key: &DestinationKey) -> Option<Idle> {
        let mut state = self.0.lock();
        let kept = state.idle.get_mut(key)?;
        let idle = kept.pop();
        if kept.is_empty() {
            state.idle.remove(key);
        }
        state.count -= usize::from(idle.is_some());
        idle
    }

    /// Keeps a connection, as long as its transport says; closes it where that is not at all, or where there are
    /// too many.
    pub(super) async fn put(
        self: &Arc<Self>,
        key: DestinationKey,
        transport: &Arc<Transport>,
        session: Session,
    ) {
        let common = &transport.common;
        let used_up = session.transactions >= transactions_max(transport, &session);
        if used_up || common.keep_idle.is_zero() || session.has_ended() || session.has_unread() {
            return session.quit().await;
        }
        let until = Instant::now() + common.keep_idle;
        let idle = Idle { session, transport: transport.clone(), until };
        if let Err(refused) = self.push(key, idle) {
            refused.session.quit().await;
        }
    }

    fn push(self: &Arc<Self>, key: DestinationKey, idle: Idle) -> Result<(), Box<Idle>> {
        let mut state = self.0.lock();
        if state.count >= IDLE_MAX {
            return Err(Box::new(idle));
        }
        state.idle.entry(key).or_default().push(idle);
        state.count += 1;
        if !std::mem::replace(&mut state.reaping, true) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
        Ok(())
    }

    /// Closes all.
    pub(super) async fn close_all(&self) {
        let all = {
            let mut state = self.0.lock();
            state.count = 0;
            std::mem::take(&mut state.idle)
        };
        for idle in all.into_values().flatten() {
            idle.session.quit().await;
        }
    }

    /// Takes out what was idle for too long, and says when to look again; `None` when nothing is left.
    fn expired(&self, now: Instant) -> (Vec<Idle>, Option<Duration>) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let mut expired = Vec::new();
        state.idle.retain(|_, kept| {
            expired.extend(kept.extract_if(.., |idle| idle.until <= now));
            !kept.is_empty()
        });
        state.count -= expired.len();
        let next = state.idle.values().flatten().map(|idle| idle.until).min();
        state.reaping = next.is_some();
        (expired, next.map(|next| (next - now).clamp(REAP_EVERY_MIN, REAP_EVERY_MAX)))
    }
}

/// Whether a session that has made so many transactions must end: the operator's limit, or the peer's (RFC 9422).
pub(super) fn transactions_max(transport: &Transport, session: &Session) -> usize {
    let ours = transport.common.messages_per_connection.max(1);
    session.extensions.mail_max.map_or(ours, |theirs| ours.min(theirs))
}

async fn reap(pool: Weak<Pool>) {
    let mut wait = REAP_EVERY_MIN;
    loop {
        tokio::time::sleep(wait).await;
        let Some(pool) = pool.upgrade() else { return };
        let (expired, next) = pool.expired(Instant::now());
        for idle in expired {
            idle.session.quit().await;
        }
        let Some(next) = next else { return };
        wait = next;
    }
}
