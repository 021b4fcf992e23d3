//! Follows certificates while the server runs: their files are read again when they change, and the log warns in good
//! time before one expires.
//!
//! Programs that renew certificates replace files, rename them, or point symbolic links elsewhere, at any part of the
//! path and on any kind of file system. A look at where each path leads, every two seconds, sees all of it; the kernel's
//! events would not. Files are read when they look as they did at the look before, so that chain and key, written one
//! after the other, are taken together.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::certificate::CertificateFacts;
use super::server::{Refreshed, ServerTls};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Days before the end at which the log warns.
const WARN_DAYS: [i64; 3] = [21, 7, 1];
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Watches until told to stop.
pub async fn watch(tls: ServerTls, stopping: CancellationToken) {
    let mut watcher = Watcher::new(tls);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            watcher.look(crate::clock::now());
            watcher
        });
        watcher = match looked.await {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(%error, "certificates are no longer watched");
                return;
            }
        };
    }
}

/// What a file looks like from outside: device, inode, size, and when it changed.
type Look = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn look_at(file: &Path) -> Look {
    let found = fs::metadata(file).ok()?;
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.size(), modified, changed))
}

struct Watcher {
    tls: ServerTls,
    /// At the last look.
    seen: Vec<Look>,
    /// When they were last read.
    read: Option<Vec<Look>>,
    /// The fewest days that the log warned of, by serial number.
    warned: BTreeMap<String, i64>,
}

impl Watcher {
    fn new(tls: ServerTls) -> Self {
        Self { tls, seen: Vec::new(), read: None, warned: BTreeMap::new() }
    }

    fn look(&mut self, now: Timestamp) {
        let files = self.tls.files();
        let looks: Vec<Look> =
            files.iter().flat_map(|f| [&f.certificate, &f.key]).map(|f| look_at(f)).collect();
        let quiet = looks == self.seen;
        if quiet && self.read.as_ref() != Some(&looks) {
            self.tls.refresh().iter().for_each(tell);
            self.read = Some(looks.clone());
        }
        self.seen = looks;
        self.warn(now);
    }

    fn warn(&mut self, now: Timestamp) {
        let status = self.tls.status();
        self.warned.retain(|serial, _| status.iter().any(|one| one.facts.serial == *serial));
        for facts in status.iter().map(|one| &one.facts) {
            let Some(days) = warning(facts, now) else { continue };
            if self.warned.get(&facts.serial).is_some_and(|told| *told <= days) {
                continue;
            }
            self.warned.insert(facts.serial.clone(), days);
            let (names, not_after) = (facts.names.join(", "), facts.not_after);
            if now >= facts.not_after {
                tracing::error!(names, %not_after, "the certificate has expired");
            } else {
                tracing::warn!(names, %not_after, "the certificate expires soon, and has not been renewed");
            }
        }
    }
}

/// The mark that was passed last: 21, 7 or 1 days before the end, or 0 at the end. Half of its life is no reason to warn
/// of any certificate.
fn warning(facts: &CertificateFacts, now: Timestamp) -> Option<i64> {
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs();
    let left = seconds(now, facts.not_after);
    if left <= 0 {
        return Some(0);
    }
    let half = seconds(facts.not_before, facts.not_after) / 2;
    WARN_DAYS.into_iter().filter(|days| left <= days * DAY_SECONDS && days * DAY_SECONDS <= half).min()
}

fn tell(news: &Refreshed) {
    match news {
        Refreshed::Changed(facts) => {
            let (names, not_after) = (facts.names.join(", "), facts.not_after);
            tracing::info!(names, %not_after, "new certificate read");
        }
        Refreshed::Mended(files) => {
            tracing::info!(certificate = %files.certificate.display(), "certificate files are good again");
        }
        Refreshed::Failed(error) => {
            tracing::error!(%error, "new certificate not taken, the one before is still shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::TlsFiles;

    /// As certbot does it: `live` holds symbolic links to numbered files in `archive`.
    struct World {
        dir: tempfile::TempDir,
        files: TlsFiles,
    }

    impl World {
        fn new() -> (Self, Watcher) {
            let dir = tempfile::tempdir().unwrap();
            let live = dir.path().join("live");
            fs::create_dir_all(&live).unwrap();
            fs::create_dir_all(dir.path().join("archive")).unwrap();
            let world = Self {
                files: TlsFiles { certificate: live.join("cert.pem"), key: live.join("key.pem") },
                dir,
            };
            world.write(1);
            world.point_to(1);
            let watcher = Watcher::new(ServerTls::load(std::slice::from_ref(&world.files)).unwrap());
            (world, watcher)
        }

        fn archived(&self, kind: &str, number: u32) -> std::path::PathBuf {
            self.dir.path().join(format!("archive/{kind}{number}.pem"))
        }

        fn write(&self, number: u32) {
            let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
            fs::write(self.archived("cert", number), made.cert.pem()).unwrap();
            fs::write(self.archived("key", number), made.signing_key.serialize_pem()).unwrap();
        }

        fn point_to(&self, number: u32) {
            for (link, kind) in [(&self.files.certificate, "cert"), (&self.files.key, "key")] {
                let _ = fs::remove_file(link);
                symlink(self.archived(kind, number), link).unwrap();
            }
        }
    }

    #[test]
    fn links_that_point_elsewhere_bring_the_new_certificate_once_it_is_quiet() {
        let (world, mut watcher) = World::new();
        let now = Timestamp::UNIX_EPOCH;
        let before = watcher.tls.chain();
        watcher.look(now);
        watcher.look(now);
        assert_eq!(watcher.tls.chain(), before);

        world.write(2);
        world.point_to(2);
        watcher.look(now);
        assert_eq!(watcher.tls.chain(), before, "something is going on");
        watcher.look(now);
        let second = watcher.tls.chain();
        assert_ne!(second, before);

        // In place, and the key a moment later than the chain.
        let old_key = fs::read(&world.files.key).unwrap();
        world.write(2);
        let new_key = fs::read(&world.files.key).unwrap();
        fs::write(&world.files.key, old_key).unwrap();
        watcher.look(now);
        watcher.look(now);
        assert_eq!(watcher.tls.chain(), second);
        assert!(watcher.tls.status()[0].problem.as_ref().unwrap().contains("does not belong"));
        fs::write(&world.files.key, new_key).unwrap();
        watcher.look(now);
        watcher.look(now);
        assert_ne!(watcher.tls.chain(), second);
        assert_eq!(watcher.tls.status()[0].problem, None);
    }

    #[test]
    fn files_that_vanish_change_nothing_but_are_told_of() {
        let (world, mut watcher) = World::new();
        let before = watcher.tls.chain();
        fs::remove_file(&world.files.certificate).unwrap();
        watcher.look(Timestamp::UNIX_EPOCH);
        watcher.look(Timestamp::UNIX_EPOCH);
        assert_eq!(watcher.tls.chain(), before);
        assert!(watcher.tls.status()[0].problem.as_ref().unwrap().contains("cannot read"));
    }

    #[test]
    fn warnings_come_21_7_and_1_days_before_the_end() {
        let (_world, watcher) = World::new();
        let day = |days: f64| Timestamp::from_second((days * 86_400.0) as i64).unwrap();
        let facts = |days: f64| CertificateFacts {
            not_before: day(0.0),
            not_after: day(days),
            ..watcher.tls.status()[0].facts.clone()
        };
        for (life, at, expected) in [
            (90.0, 60.0, None),
            (90.0, 68.9, None),
            (90.0, 69.0, Some(21)),
            (90.0, 82.9, Some(21)),
            (90.0, 83.0, Some(7)),
            (90.0, 89.5, Some(1)),
            (90.0, 90.0, Some(0)),
            (90.0, 400.0, Some(0)),
            // Those that live for six days are always in their last week.
            (6.0, 1.0, None),
            (6.0, 5.0, Some(1)),
            (0.1, 0.05, None),
        ] {
            assert_eq!(warning(&facts(life), day(at)), expected, "{life} days, at {at}");
        }
    }

    #[test]
    fn each_warning_is_given_once() {
        let (_world, mut watcher) = World::new();
        let not_after = watcher.tls.status()[0].facts.not_after;
        let serial = watcher.tls.status()[0].facts.serial.clone();
        for (days, told) in [(5, 7), (5, 7), (1, 1), (0, 0)] {
            watcher.warn(not_after - jiff::SignedDuration::from_hours(24 * days));
            assert_eq!(watcher.warned.get(&serial), Some(&told), "{days}");
        }
    }
}
