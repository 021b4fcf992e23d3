//! A segment: a file of fixed size that holds a header page, records, and (when it is sealed) a footer.
//!
//! The header stands twice in its page, so that one damaged bit does not cost a segment. The footer repeats the
//! heads and briefs of all records, so that a start does not read messages; without a good footer the records
//! are found by a scan, which goes on behind a damaged one. `docs/spool.md` has the tables.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::record::{Event, HEADER_BYTES, Head, NUMBERS_END, u32_at, u64_at};

/// Where the records begin.
pub(super) const RECORDS_FROM: u32 = 4096;
/// Bytes of the trailer, the end of a footer and of a sealed segment.
pub(super) const TRAILER_BYTES: usize = 48;
/// Failed segments that a header has room to name.
pub(super) const VOIDS_MAX: usize = (COPY_AT - HEADER_FIXED_BYTES) / VOID_BYTES;

const HEADER_MAGIC: &[u8; 8] = b"WAYSPOOL";
const TRAILER_MAGIC: &[u8; 8] = b"WAYFOOTR";
const VERSION: u32 = 1;
const COPY_AT: usize = RECORDS_FROM as usize / 2;
const HEADER_FIXED_BYTES: usize = 64;
const VOID_BYTES: usize = 16;
/// A record's place, and its head without CRC and tag.
const FOOTER_ENTRY_BYTES: usize = 4 + HEADER_BYTES - 12;
const ZERO_CHUNK_BYTES: usize = 1 << 20;
const ZERO_SYNC_BYTES: u64 = 8 << 20;

/// In a segment whose write or sync failed, nothing from there on counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Void {
    /// The segment's generation.
    pub tag: u64,
    /// The first byte that does not count.
    pub from: u32,
}

/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Nothing in it is needed; it waits for its next use.
    pub free: bool,
    /// Counts all uses of all segments: their order.
    pub sequence: u64,
    /// The generation: a random number for each use.
    pub tag: u64,
    /// No message had this number or a higher one when the use began.
    pub next_id: u64,
    /// No record had this number or a higher one when the use began.
    pub next_lsn: u64,
    /// All failed segments that are still there.
    pub voids: Vec<Void>,
}

impl Header {
    /// The page with both copies.
    pub(super) fn page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(RECORDS_FROM as usize);
        for end in [COPY_AT, 2 * COPY_AT] {
            let start = page.len();
            page.extend_from_slice(HEADER_MAGIC);
            page.extend_from_slice(&VERSION.to_le_bytes());
            page.extend_from_slice(&u32::from(self.free).to_le_bytes());
            for number in [self.sequence, self.tag, self.next_id, self.next_lsn, 0] {
                page.extend_from_slice(&number.to_le_bytes());
            }
            page.extend_from_slice(&(self.voids.len() as u32).to_le_bytes());
            page.extend_from_slice(&[0; 4]);
            for void in &self.voids {
                page.extend_from_slice(&void.tag.to_le_bytes());
                page.extend_from_slice(&u64::from(void.from).to_le_bytes());
            }
            let crc = crc32c::crc32c(&page[start..]);
            page[start + 60..start + 64].copy_from_slice(&crc.to_le_bytes());
            page.resize(end, 0);
        }
        page
    }

    /// Reads a page; of two good copies that differ (the page was torn) the newer counts.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        let copies = [page.get(..COPY_AT), page.get(COPY_AT..2 * COPY_AT)];
        copies
            .into_iter()
            .flatten()
            .filter_map(Self::parse_copy)
            .max_by_key(|copy| (copy.sequence, copy.free))
    }

    fn parse_copy(copy: &[u8]) -> Option<Self> {
        let count = u32_at(copy, 56)? as usize;
        if copy.get(..8)? != HEADER_MAGIC || u32_at(copy, 8)? != VERSION || count > VOIDS_MAX {
            return None;
        }
        let mut covered = copy.get(..HEADER_FIXED_BYTES + count * VOID_BYTES)?.to_vec();
        covered[60..64].fill(0);
        if crc32c::crc32c(&covered) != u32_at(copy, 60)? {
            return None;
        }
        let void = |at: usize| Some(Void { tag: u64_at(copy, at)?, from: u64_at(copy, at + 8)? as u32 });
        let header = Self {
            free: u32_at(copy, 12)? != 0,
            sequence: u64_at(copy, 16)?,
            tag: u64_at(copy, 24)?,
            next_id: u64_at(copy, 32)?,
            next_lsn: u64_at(copy, 40)?,
            voids: (0..count).map(|i| void(HEADER_FIXED_BYTES + i * VOID_BYTES)).collect::<Option<_>>()?,
        };
        let numbers = [header.sequence, header.next_id, header.next_lsn];
        numbers.into_iter().all(|number| number < NUMBERS_END).then_some(header)
    }
}

/// A segment that waits for its next use.
#[derive(Debug)]
pub(super) struct Spare {
    pub slot: u32,
    pub file: Arc<File>,
}

/// The name of a segment's file.
pub(super) fn path(dir: &Path, slot: u32) -> PathBuf {
    dir.join(format!("{slot:08}.seg"))
}

/// The slot of a segment's file.
pub(super) fn slot_of(path: &Path) -> Option<u32> {
    (path.extension()? == "seg").then_some(())?;
    path.file_stem()?.to_str()?.parse().ok()
}

/// Makes a new segment. Its first bytes are written with zeroes: overwriting blocks that were written before
/// syncs two to three times faster than writing blocks that are only reserved.
pub(super) fn create(disk: &dyn Disk, dir: &Path, slot: u32, bytes: u64, zeroed: u64) -> io::Result<Spare> {
    let (new, ready) = (dir.join(format!("{slot:08}.new")), path(dir, slot));
    let made = (|| {
        let file = disk.allocate(&new, bytes)?;
        let free = Header { free: true, sequence: 0, tag: 0, next_id: 0, next_lsn: 0, voids: Vec::new() };
        disk.write_at(&file, &free.page(), 0)?;
        let zeroes = vec![0; ZERO_CHUNK_BYTES];
        let mut at = u64::from(RECORDS_FROM);
        while at < zeroed.min(bytes) {
            let chunk = (bytes - at).min(ZERO_CHUNK_BYTES as u64 - at % ZERO_CHUNK_BYTES as u64);
            disk.write_at(&file, &zeroes[..chunk as usize], at)?;
            at += chunk;
            if at.is_multiple_of(ZERO_SYNC_BYTES) {
                // In small portions, so that the writer's syncs do not wait for a large one.
                disk.sync(&file)?;
            }
        }
        disk.sync(&file)?;
        disk.rename(&new, &ready)?;
        disk.sync_dir(dir)?;
        Ok(Spare { slot, file: Arc::new(file) })
    })();
    if made.is_err() {
        for left in [&new, &ready] {
            // What cannot be removed now is removed, or found to be free, at the next start.
            let _ = disk.remove(left);
        }
    }
    made
}

/// A record found in a segment.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub offset: u32,
    pub head: Head,
    pub event: Event,
}

/// A footer that grows with the segment.
#[derive(Debug, Default)]
pub(super) struct Footer {
    bytes: Vec<u8>,
    count: u32,
}

impl Footer {
    /// Room that a record takes in the footer.
    pub(super) const fn entry_bytes(brief_bytes: usize) -> usize {
        FOOTER_ENTRY_BYTES + brief_bytes
    }

    /// Room that the footer takes, with its trailer.
    pub(super) fn total_bytes(&self) -> usize {
        self.bytes.len() + TRAILER_BYTES
    }

    /// Adds a record.
    pub(super) fn push(&mut self, offset: u32, head: &Head, brief: &[u8]) {
        let out = &mut self.bytes;
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&[head.kind as u8, u8::from(head.last), 0, 0]);
        out.extend_from_slice(&head.lsn.to_le_bytes());
        out.extend_from_slice(&head.id.0.to_le_bytes());
        for number in [head.brief_bytes, head.detail_bytes, head.content_bytes, head.content_crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(brief);
        self.count += 1;
    }

    /// The bytes that end a segment, trailer included.
    pub(super) fn seal(&self, tag: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.total_bytes());
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(TRAILER_MAGIC);
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(&u64::from(self.count).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }
}

/// Reads the footer of a segment; `None` when there is none, or when it is not whole.
pub(super) fn read_footer(file: &File, tag: u64) -> io::Result<Option<Vec<Found>>> {
    let bytes = file.metadata()?.len();
    let room = bytes.saturating_sub(u64::from(RECORDS_FROM));
    if room < TRAILER_BYTES as u64 {
        return Ok(None);
    }
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, bytes - TRAILER_BYTES as u64)?;
    let length = u64_at(&trailer, 16).unwrap_or(u64::MAX);
    let ours = &trailer[..8] == TRAILER_MAGIC && u64_at(&trailer, 8) == Some(tag);
    if !ours || length > room - TRAILER_BYTES as u64 {
        return Ok(None);
    }
    let from = bytes - TRAILER_BYTES as u64 - length;
    let mut footer = vec![0; length as usize + TRAILER_BYTES];
    file.read_exact_at(&mut footer, from)?;
    let covered = footer.len() - 8;
    if Some(crc32c::crc32c(&footer[..covered])) != u32_at(&footer, covered) {
        return Ok(None);
    }
    let count = u64_at(&trailer, 24).unwrap_or_default();
    Ok(parse_footer(&footer[..length as usize], tag, from).filter(|found| found.len() as u64 == count))
}

fn parse_footer(mut rest: &[u8], tag: u64, records_to: u64) -> Option<Vec<Found>> {
    let mut found = Vec::with_capacity(rest.len() / FOOTER_ENTRY_BYTES);
    while !rest.is_empty() {
        // The entry is a head that begins 4 bytes later and has no tag.
        let entry = rest.get(..FOOTER_ENTRY_BYTES)?;
        let mut head = [0; HEADER_BYTES];
        head[4..8].copy_from_slice(&entry[4..8]);
        head[8..16].copy_from_slice(&tag.to_le_bytes());
        head[16..].copy_from_slice(&entry[8..]);
        let (offset, head) = (u32_at(entry, 0)?, Head::parse(&head)?);
        let brief = rest.get(FOOTER_ENTRY_BYTES..FOOTER_ENTRY_BYTES + head.brief_bytes as usize)?;
        let end = u64::from(offset) + head.record_bytes() as u64;
        if offset < RECORDS_FROM || end > records_to {
            return None;
        }
        found.push(Found { offset, head, event: Event::parse(head.kind, brief)? });
        rest = &rest[FOOTER_ENTRY_BYTES + brief.len()..];
    }
    Some(found)
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub found: Vec<Found>,
    /// Where records are damaged that good ones follow.
    pub damaged: Vec<u32>,
    /// Where something begins that is no whole record and that nothing follows: a torn tail, or damage at the end.
    pub torn: Option<u32>,
}

/// Finds the records of a segment by reading it. It does not stop at a bad record: where one is damaged, those
/// behind it were acknowledged too. (What was written but never acknowledged may come back as well; its sender
/// was not told that it is gone.) Only records with the segment's own random tag are taken, so that neither an
/// earlier use of the segment nor the body of a message can pass for one.
pub(super) fn scan(file: &File, tag: u64) -> io::Result<Scan> {
    let bytes = file.metadata()?.len();
    let mut segment = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut segment, 0)?;
    Ok(scan_bytes(&segment, tag))
}

/// The next place, from `at` on, that has the tag where a record has it.
fn next_tag(tags: &memchr::memmem::Finder<'_>, segment: &[u8], mut at: usize) -> usize {
    while let Some(found) = segment.get(at + 8..).and_then(|rest| tags.find(rest)) {
        at = (at + found).next_multiple_of(8);
        if found.is_multiple_of(8) {
            return at;
        }
    }
    segment.len()
}

fn scan_bytes(segment: &[u8], tag: u64) -> Scan {
    let mut scan = Scan::default();
    let tag_bytes = tag.to_le_bytes();
    let tags = memchr::memmem::Finder::new(&tag_bytes);
    let mut bad: Option<u32> = None;
    let mut at = RECORDS_FROM as usize;
    while at + HEADER_BYTES <= segment.len() {
        let rest = &segment[at..];
        if u64_at(rest, 8) != Some(tag) {
            // Damage if a record follows; else the log just ends here.
            bad.get_or_insert(at as u32);
            at = next_tag(&tags, segment, at + 8);
            continue;
        }
        let event = |head: &Head| {
            Event::parse(head.kind, &rest[HEADER_BYTES..HEADER_BYTES + head.brief_bytes as usize])
        };
        let whole = Head::parse_checked(rest, tag).and_then(|head| Some((head, event(&head)?)));
        let Some((head, event)) = whole else {
            bad.get_or_insert(at as u32);
            scan.torn.get_or_insert(at as u32);
            at += 8;
            continue;
        };
        let content = rest.get(head.front_bytes()..head.front_bytes() + head.content_bytes as usize);
        if content.is_some_and(|content| crc32c::crc32c(content) == head.content_crc) {
            scan.damaged.extend(bad.take());
            scan.torn = None;
            scan.found.push(Found { offset: at as u32, head, event });
        } else {
            bad.get_or_insert(at as u32);
            scan.torn.get_or_insert(at as u32);
        }
        // The head is good, so its lengths are; nothing within its content is looked at.
        at += head.record_bytes();
    }
    scan
}
