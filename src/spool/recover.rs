//! From the files to the index: what a start does.
//!
//! Every segment that is not marked as free is read, by its footer if it has a good one, else by a scan. The
//! records of a message are taken in the order of their numbers, wherever they stand; of copies of one record
//! the one in the youngest segment counts. What was only written, and not synced, when the last run ended is
//! synced before anything is done about it. The log goes on in another segment; nothing is appended to an old one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::index::{Index, Loc, Phase, Segment};
use super::labels::MessageLabels;
use super::large;
use super::record::Event;
use super::segment::{self, Footer, Found, Header, RECORDS_FROM, Spare};
use super::types::{SpoolError, SpoolOptions};
use crate::names::QueueId;

/// After an end that was not clean so many numbers are left out: a damaged tail may have held some of them.
const NUMBERS_SKIPPED: u64 = 4096;
/// The same when a whole segment cannot be read.
const NUMBERS_SKIPPED_SEGMENT: u64 = 1 << 24;

/// What was found.
pub(super) struct Recovered {
    pub index: Index,
    /// What the records of waiting messages say of them.
    pub labels: HashMap<QueueId, Arc<MessageLabels>>,
    pub spares: Vec<Spare>,
    pub next_id: u64,
    pub next_lsn: u64,
    /// Of the youngest use of a segment.
    pub sequence: u64,
    pub next_slot: u32,
    pub damaged: u64,
    /// Messages of which nothing waits, though no record says so.
    pub unfinished: Vec<QueueId>,
    /// Free segments of another size than is configured now: to be removed once a header with the next numbers
    /// is durable elsewhere.
    pub obsolete: Vec<PathBuf>,
    skipped: u64,
}

/// A segment in use, as found.
struct Used {
    slot: u32,
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    header: Header,
    records: Vec<Found>,
}

/// A record, as found.
struct Piece {
    id: QueueId,
    lsn: u64,
    sequence: u64,
    loc: Loc,
    last: bool,
    event: Event,
}

/// Reads the spool in `dir`, whose lock is held.
pub(super) fn recover(dir: &Path, options: &SpoolOptions, disk: &dyn Disk) -> Result<Recovered, SpoolError> {
    let mut recovered = Recovered {
        index: Index::default(),
        labels: HashMap::new(),
        spares: Vec::new(),
        next_id: 1,
        next_lsn: 1,
        sequence: 0,
        next_slot: 0,
        damaged: 0,
        unfinished: Vec::new(),
        obsolete: Vec::new(),
        skipped: 0,
    };
    let used = recovered.open_segments(dir, options, disk)?;
    recovered.read_segments(used, disk)?;
    recovered.look_at_large(dir, disk)?;
    Ok(recovered)
}

impl Recovered {
    /// Opens all segments and reads their headers; those in use come back in the order of their use.
    fn open_segments(
        &mut self,
        dir: &Path,
        options: &SpoolOptions,
        disk: &dyn Disk,
    ) -> Result<Vec<Used>, SpoolError> {
        let mut used = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                // The last run ended while it made a segment.
                disk.remove(&path)?;
                continue;
            }
            let Some(slot) = segment::slot_of(&path) else { continue };
            self.next_slot = self.next_slot.max(slot.saturating_add(1));
            let file = Arc::new(File::options().read(true).write(true).open(&path)?);
            let bytes = file.metadata()?.len();
            let Some(header) = read_header(&file, bytes)? else {
                self.damaged += 1;
                self.skipped = NUMBERS_SKIPPED_SEGMENT;
                tracing::error!(path = %path.display(), "a segment of the queue has no readable header; it is left alone");
                continue;
            };
            self.sequence = self.sequence.max(header.sequence);
            self.next_id = self.next_id.max(header.next_id);
            self.next_lsn = self.next_lsn.max(header.next_lsn);
            if !header.free {
                used.push(Used { slot, path, file, bytes, header, records: Vec::new() });
            } else if bytes == options.segment_bytes {
                self.spares.push(Spare { slot, file });
            } else {
                self.obsolete.push(path);
            }
        }
        used.sort_by_key(|used| used.header.sequence);
        Ok(used)
    }

    fn read_segments(&mut self, mut used: Vec<Used>, disk: &dyn Disk) -> Result<(), SpoolError> {
        let tags: HashSet<u64> = used.iter().map(|used| used.header.tag).collect();
        for void in used.iter().flat_map(|used| &used.header.voids) {
            if tags.contains(&void.tag) && !self.index.voids.contains(void) {
                self.index.voids.push(*void);
            }
        }
        let mut clean = true;
        for used in &mut used {
            clean &= self.read_segment(used, disk)?;
        }
        if !clean {
            self.skipped = self.skipped.max(NUMBERS_SKIPPED);
        }
        self.next_id += self.skipped;
        self.next_lsn += self.skipped;
        let mut pieces = Vec::new();
        for used in used {
            let Used { slot, path, file, bytes, header: Header { sequence, tag, .. }, records } = used;
            let failed = self.index.voids.iter().any(|void| void.tag == tag);
            // Active until all records are known: sealed ones are looked at when something in them dies.
            let phase = Phase::Active;
            let ids = Vec::new();
            let segment =
                Segment { file, path, bytes, sequence, tag, phase, failed, damaged: false, live: 0, ids };
            self.index.segments.insert(slot, segment);
            pieces.extend(records.into_iter().map(|found| {
                let loc = Loc { slot, offset: found.offset, bytes: found.head.record_bytes() as u32 };
                let head = found.head;
                Piece { id: head.id, lsn: head.lsn, sequence, loc, last: head.last, event: found.event }
            }));
        }
        pieces.sort_by_key(|piece| (piece.id, piece.lsn, piece.sequence));
        for of_message in pieces.chunk_by(|a, b| a.id == b.id) {
            self.replay(of_message);
            self.remember(of_message);
        }
        self.index.age();
        self.unfinished.retain(|id| self.index.messages.contains_key(id));
        let slots: Vec<u32> = self.index.segments.keys().copied().collect();
        for slot in slots {
            self.index.sealed(slot, false);
        }
        Ok(())
    }

    /// Finds the records of a segment. One without a footer gets it now. Returns whether it had one.
    fn read_segment(&mut self, used: &mut Used, disk: &dyn Disk) -> Result<bool, SpoolError> {
        let tag = used.header.tag;
        let footer = segment::read_footer(&used.file, tag)?;
        let clean = footer.is_some();
        used.records = match footer {
            Some(records) => records,
            None => self.scan(used)?,
        };
        let void = self.index.voids.iter().filter(|void| void.tag == tag).map(|void| void.from).min();
        for found in &used.records {
            self.next_id = self.next_id.max(found.head.id.0.saturating_add(1));
            self.next_lsn = self.next_lsn.max(found.head.lsn.saturating_add(1));
        }
        used.records.retain(|found| void.is_none_or(|from| found.offset < from));
        if !clean && void.is_none() {
            seal(used, disk)?;
        }
        Ok(clean)
    }

    fn scan(&mut self, used: &Used) -> Result<Vec<Found>, SpoolError> {
        let scan = segment::scan(&used.file, used.header.tag)?;
        let path = used.path.display();
        for offset in &scan.damaged {
            self.damaged += 1;
            tracing::error!(%path, offset, "a record of the queue is damaged; those behind it are good");
        }
        if let Some(offset) = scan.torn {
            tracing::warn!(%path, offset, "the log ends with a record that is not whole; it is cut there");
        }
        Ok(scan.found)
    }

    /// Takes the records of one message, in order; copies of one record stand side by side, the youngest last.
    fn replay(&mut self, pieces: &[Piece]) {
        let mut message: Option<u64> = None;
        for copies in pieces.chunk_by(|a, b| a.lsn == b.lsn) {
            let Some((youngest, older)) = copies.split_last() else { continue };
            let id = youngest.id;
            match (&youngest.event, message) {
                (Event::Message(brief), None) => {
                    message = Some(youngest.lsn);
                    self.index.insert(id, brief, youngest.loc, copies.len() as u32);
                    for copy in older {
                        if let Some(segment) = self.index.segments.get_mut(&copy.loc.slot) {
                            segment.ids.push(id);
                        }
                    }
                }
                (Event::Message(_), Some(_)) => {
                    self.damaged += 1;
                    tracing::error!(%id, "two messages have this number; the second is left out");
                }
                // About a message that is done, or whose record is lost.
                (_, None) => {}
                (event, Some(_)) => {
                    if self.index.apply(id, event, youngest.last, youngest.loc) {
                        self.unfinished.push(id);
                    }
                }
            }
        }
    }

    /// What is known about a message that waits.
    fn remember(&mut self, pieces: &[Piece]) {
        let Some(Piece { id, event: Event::Message(brief), .. }) = pieces.first() else { return };
        if let (Some(labels), true) = (&brief.labels, self.index.messages.contains_key(id)) {
            self.labels.insert(*id, labels.clone());
        }
    }

    /// Removes files whose messages are done; tells of messages whose files are gone. Nothing is removed on the word of
    /// a log that is damaged.
    fn look_at_large(&mut self, dir: &Path, disk: &dyn Disk) -> Result<(), SpoolError> {
        self.index.dead_large.clear();
        let mut there = HashSet::new();
        for entry in std::fs::read_dir(large::folder(dir))? {
            let path = entry?.path();
            let id = large::id_of(&path);
            match (id.filter(|id| self.index.messages.get(id).is_some_and(|entry| entry.large)), id) {
                (Some(id), _) => drop(there.insert(id)),
                // Its record may be one of those that do not read: then this is all that is left of a message.
                (None, Some(id)) if self.damaged > 0 => {
                    disk.rename(&path, &large::put_aside(&path))?;
                    tracing::error!(%id, "a large message has no record, and records are damaged: its file is put aside");
                }
                (None, None) if large::is_put_aside(&path) => {}
                (None, _) => disk.remove(&path)?,
            }
        }
        for (id, _) in self.index.messages.iter().filter(|(id, entry)| entry.large && !there.contains(id)) {
            self.damaged += 1;
            tracing::error!(%id, "the file of a large message is gone");
        }
        Ok(())
    }
}

fn read_header(file: &File, bytes: u64) -> io::Result<Option<Header>> {
    let mut page = vec![0; bytes.min(u64::from(RECORDS_FROM)) as usize];
    file.read_exact_at(&mut page, 0)?;
    Ok(Header::parse(&page))
}

/// Makes what was found durable, and the next start quick.
fn seal(used: &Used, disk: &dyn Disk) -> io::Result<()> {
    let mut footer = Footer::default();
    let mut brief = Vec::new();
    let mut end = u64::from(RECORDS_FROM);
    for found in &used.records {
        brief.clear();
        found.event.put(&mut brief);
        footer.push(found.offset, &found.head, &brief);
        end = end.max(u64::from(found.offset) + found.head.record_bytes() as u64);
    }
    let footer = footer.seal(used.header.tag);
    if end + footer.len() as u64 <= used.bytes {
        disk.write_at(&used.file, &footer, used.bytes - footer.len() as u64)?;
    }
    disk.sync(&used.file)
}
