//! Random operations on two mailboxes, compared after each with a simple model in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What the model knows of a message.
#[derive(Debug, Clone)]
struct Message {
    modseq: u64,
    flags: String,
    text: String,
}

#[derive(Debug, Clone)]
struct Model {
    uidnext: u32,
    modseq: u64,
    messages: BTreeMap<u32, Message>,
    expunged: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone)]
enum Op {
    Append(usize, Vec<usize>),
    Flags(usize, Vec<Index>, FlagOp, usize, Option<u64>),
    Copy(usize, Vec<Index>, usize),
    Move(usize, Vec<Index>, usize),
    Expunge(usize, Option<Vec<Index>>),
}

/// Sets of flags to choose from, each in the order in which it is shown.
const SETS: [&str; 6] = ["", "\\Seen", "\\Deleted", "\\Seen \\Deleted x", "a x", "\\Flagged a"];

impl Model {
    fn new() -> Self {
        Self { uidnext: 1, modseq: 1, messages: BTreeMap::new(), expunged: BTreeMap::new() }
    }

    /// Existing UIDs and one that does not exist.
    fn pick(&self, which: &[Index]) -> Vec<u32> {
        let known: Vec<u32> = self.messages.keys().copied().chain([self.uidnext + 5]).collect();
        which.iter().map(|index| *index.get(&known)).collect()
    }

    fn add(&mut self, messages: impl IntoIterator<Item = (String, String)>) -> Vec<u32> {
        let modseq = self.modseq + 1;
        let mut uids = Vec::new();
        for (flags, text) in messages {
            self.messages.insert(self.uidnext, Message { modseq, flags, text });
            uids.push(self.uidnext);
            self.uidnext += 1;
            self.modseq = modseq;
        }
        uids
    }

    fn take(&mut self, uids: &[u32]) {
        let modseq = self.modseq + 1;
        for uid in uids {
            self.messages.remove(uid);
            self.expunged.insert(*uid, modseq);
            self.modseq = modseq;
        }
    }

    fn known(&self, uids: &[u32]) -> Vec<u32> {
        self.messages.keys().copied().filter(|uid| uids.contains(uid)).collect()
    }

    fn with(&self, flag: &str, only: Option<&[u32]>) -> Vec<u32> {
        let chosen = |uid: &u32| only.is_none_or(|only| only.contains(uid));
        let has = |message: &Message| message.flags.split(' ').any(|word| word == flag);
        self.messages
            .iter()
            .filter(|(uid, message)| chosen(uid) && has(message))
            .map(|(uid, _)| *uid)
            .collect()
    }
}

fn changed_flags(before: &str, op: FlagOp, set: &str) -> String {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let after: Vec<String> = match op {
        FlagOp::Replace => words(set),
        FlagOp::Add => words(before).into_iter().chain(words(set)).collect(),
        FlagOp::Remove => words(before).into_iter().filter(|word| !words(set).contains(word)).collect(),
    };
    let order = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "a", "x"];
    order.into_iter().filter(|word| after.iter().any(|a| a == word)).collect::<Vec<_>>().join(" ")
}

fn op() -> impl Strategy<Value = Op> {
    let mailbox = 0..2usize;
    let which = || prop::collection::vec(any::<Index>(), 0..5);
    let set = 0..SETS.len();
    let flag_op = prop::sample::select(vec![FlagOp::Add, FlagOp::Remove, FlagOp::Replace]);
    prop_oneof![
        3 => (mailbox.clone(), prop::collection::vec(set.clone(), 0..4)).prop_map(|(m, sets)| Op::Append(m, sets)),
        4 => (mailbox.clone(), which(), flag_op, set, prop::option::weighted(0.3, 0..4u64))
            .prop_map(|(m, which, op, set, back)| Op::Flags(m, which, op, set, back)),
        1 => (mailbox.clone(), which(), mailbox.clone()).prop_map(|(from, which, to)| Op::Copy(from, which, to)),
        1 => (mailbox.clone(), which(), mailbox.clone()).prop_map(|(from, which, to)| Op::Move(from, which, to)),
        2 => (mailbox, prop::option::of(which())).prop_map(|(m, which)| Op::Expunge(m, which)),
    ]
}

struct Run {
    store: Store,
    ids: [MailboxId; 2],
    models: [Model; 2],
    appended: usize,
}

impl Run {
    async fn step(&mut self, op: &Op) {
        match op {
            Op::Append(m, sets) => self.append(*m, sets).await,
            Op::Flags(m, which, op, set, back) => self.flags(*m, which, *op, SETS[*set], *back).await,
            Op::Copy(from, which, to) => {
                let uids = self.models[*from].pick(which);
                let copied =
                    self.store.copy_messages(self.ids[*from], uids.clone(), self.ids[*to]).await.unwrap();
                assert_eq!(copied.pairs, self.copy(*from, &uids, *to));
            }
            Op::Move(from, which, to) => {
                let uids = self.models[*from].pick(which);
                let moved =
                    self.store.move_messages(self.ids[*from], uids.clone(), self.ids[*to]).await.unwrap();
                let pairs = self.copy(*from, &uids, *to);
                self.models[*from].take(&pairs.iter().map(|(uid, _)| *uid).collect::<Vec<_>>());
                assert_eq!(moved.pairs, pairs);
            }
            Op::Expunge(m, which) => {
                let only = which.as_ref().map(|which| self.models[*m].pick(which));
                let gone = self.models[*m].with("\\Deleted", only.as_deref());
                self.models[*m].take(&gone);
                assert_eq!(self.store.expunge(self.ids[*m], only).await.unwrap(), gone);
            }
        }
    }

    async fn append(&mut self, m: usize, sets: &[usize]) {
        let mut mails = Vec::new();
        let mut known = Vec::new();
        for set in sets {
            self.appended += 1;
            // Every other body is too large for a row.
            let text = format!("N: {}\r\n\r\n{}", self.appended, "x".repeat(self.appended % 2 * 60));
            mails.push(NewMail { flags: flags(SETS[*set]), ..mail(&text) });
            known.push((SETS[*set].to_owned(), text));
        }
        let appended = self.store.append(self.ids[m], mails).await.unwrap();
        assert_eq!(appended.uids, self.models[m].add(known));
    }

    async fn flags(&mut self, m: usize, which: &[Index], op: FlagOp, set: &str, back: Option<u64>) {
        let model = &mut self.models[m];
        let uids = model.pick(which);
        let since = back.map(|back| model.modseq.saturating_sub(back));
        let modseq = model.modseq + 1;
        let (mut changed, mut modified) = (Vec::new(), Vec::new());
        for uid in model.known(&uids) {
            let Some(message) = model.messages.get_mut(&uid) else { continue };
            let after = changed_flags(&message.flags, op, set);
            if since.is_some_and(|since| message.modseq > since) {
                modified.push(uid);
            } else if after != message.flags {
                (message.flags, message.modseq) = (after, modseq);
                changed.push(uid);
                model.modseq = modseq;
            }
        }
        let result = self.store.store_flags(self.ids[m], uids, op, flags(set), since).await.unwrap();
        assert_eq!(result.changed.iter().map(|row| row.uid).collect::<Vec<_>>(), changed);
        assert_eq!(result.modified, modified);
    }

    fn copy(&mut self, from: usize, uids: &[u32], to: usize) -> Vec<(u32, u32)> {
        let known = self.models[from].known(uids);
        let copies: Vec<_> = known
            .iter()
            .map(|uid| &self.models[from].messages[uid])
            .map(|m| (m.flags.clone(), m.text.clone()))
            .collect();
        let new = self.models[to].add(copies);
        known.into_iter().zip(new).collect()
    }

    /// Everything that can be asked, compared.
    async fn compare(&self) {
        for (id, model) in self.ids.iter().zip(&self.models) {
            let show = |rows: &[MessageRow]| {
                rows.iter()
                    .map(|row| (row.uid, row.modseq, row.flags.to_string(), row.size))
                    .collect::<Vec<_>>()
            };
            let known = |since: u64| {
                let later = model.messages.iter().filter(move |(_, message)| message.modseq > since);
                later
                    .map(|(uid, m)| (*uid, m.modseq, m.flags.clone(), m.text.len() as u64))
                    .collect::<Vec<_>>()
            };
            let view = self.store.open_view(*id).await.unwrap();
            assert_eq!((view.uidnext, view.highest_modseq), (model.uidnext, model.modseq));
            assert_eq!(show(&view.messages), known(0));
            for since in model.modseq.saturating_sub(3)..=model.modseq {
                let changes = self.store.changes_since(*id, since).await.unwrap();
                assert_eq!(show(&changes.changed), known(since));
                let gone: Vec<u32> =
                    model.expunged.iter().filter(|(_, at)| **at > since).map(|(uid, _)| *uid).collect();
                assert_eq!(changes.expunged, gone);
            }
            let status = self.store.status(*id).await.unwrap();
            assert_eq!(status.messages as usize, model.messages.len());
            assert_eq!(status.deleted as usize, model.with("\\Deleted", None).len());
            assert_eq!((status.messages - status.unseen) as usize, model.with("\\Seen", None).len());
            assert_eq!(status.size, model.messages.values().map(|m| m.text.len() as u64).sum::<u64>());
        }
    }

    async fn compare_contents(&self) {
        for (id, model) in self.ids.iter().zip(&self.models) {
            for (uid, message) in &model.messages {
                assert_eq!(self.store.content(*id, *uid).await.unwrap().unwrap(), message.text);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mailboxes_behave_as_the_model_does(ops in prop::collection::vec(op(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::with(StoreOptions { body_bytes_max_in_row: 50, ..StoreOptions::default() }).await;
            let ids = [world.inbox, world.create("other").await];
            let mut run = Run { store: world.store.clone(), ids, models: [Model::new(), Model::new()], appended: 0 };
            for op in &ops {
                run.step(op).await;
                run.compare().await;
            }
            run.compare_contents().await;
            let used: std::collections::BTreeSet<_> =
                run.models.iter().flat_map(|model| model.messages.values().map(|message| &message.text)).collect();
            world.settle(used.len() as u32).await;
        });
    }
}
