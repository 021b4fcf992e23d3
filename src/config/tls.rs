//! Reads `[tls]`: certificates from files, and by ACME.

use std::path::PathBuf;

use super::acme::{Acme, acme};
use super::problems::Problem;
use super::read::Look;
use super::section::Section;
use crate::address::Domain;

/// The certificates of all listeners. At least one: by ACME or from files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// From files. The first is shown where no other is for the name that a client asks for, unless there is one by ACME.
    pub files: Vec<TlsFiles>,
    /// From a CA.
    pub acme: Option<Acme>,
}

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// `[tls]`. `hostname` is what a certificate is for where no names are given.
pub(super) fn tls(mut section: Section<'_>, hostname: Option<&Domain>, look: Look) -> Option<Tls> {
    let present = section.is_present();
    let by_acme = section.has("acme");
    let table = section.section("acme", "[tls.acme]");
    let acme = by_acme.then(|| acme(table, hostname, look));
    let mut files = Vec::new();
    if by_acme {
        for key in ["certificate", "key"].into_iter().filter(|key| section.has(key)) {
            let message = format!("`{key}` beside [tls.acme]: which certificate is meant?");
            let help = "leave one of them out; certificates for further names go into [[tls.more]]";
            let problem = Problem::new(section.key_place(key), message, "a certificate from files");
            section.reader.report(problem.help(help));
        }
        // They are known, though not wanted.
        section.get("certificate");
        section.get("key");
    } else if present {
        files.push(pair(&mut section, look));
    }
    files.extend(more(&mut section, look));
    section.finish();
    // A broken [tls] was reported; taking it for a present one keeps the listeners from being blamed as well.
    present.then_some(Tls { files, acme })
}

/// `[[tls.more]]`.
fn more(section: &mut Section<'_>, look: Look) -> Vec<TlsFiles> {
    let Some(value) = section.get("more") else { return Vec::new() };
    let reader = section.reader;
    let Some(array) = value.get_ref().as_array() else {
        let problem =
            Problem::new(value.span(), "`more` must be tables", "written [[tls.more]], one for each");
        reader.report(problem);
        return Vec::new();
    };
    let read = |mut table: Section<'_>| {
        let files = pair(&mut table, look);
        table.finish();
        files
    };
    array.iter().filter_map(|item| reader.table("[[tls.more]]", item.span(), item)).map(read).collect()
}

/// `certificate` and `key`.
fn pair(section: &mut Section<'_>, look: Look) -> TlsFiles {
    let (certificate, key) = (section.path("certificate"), section.path("key"));
    for (name, example) in [
        ("certificate", "certificate = \"/etc/waypost/cert.pem\": the chain, PEM"),
        ("key", "key = \"/etc/waypost/key.pem\": the private key, PEM"),
    ] {
        if !section.has(name) {
            section.missing(name, example);
        }
    }
    for path in [&certificate, &key].into_iter().flatten() {
        if look == Look::Files && !path.value.is_file() {
            let message = format!("there is no file {}", path.value.display());
            section.reader.report(Problem::new(path.place.clone(), message, "not there"));
        }
    }
    TlsFiles {
        certificate: certificate.map(|path| path.value).unwrap_or_default(),
        key: key.map(|path| path.value).unwrap_or_default(),
    }
}
