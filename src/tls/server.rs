//! The server's side of TLS: which certificates we show, and how they change while we run.
//!
//! All listeners share one [`ServerTls`]. Its `rustls` configuration is made once; a certificate is chosen at every
//! handshake, by the name that the client asks for (SNI, RFC 6066 §3), so that new certificates take effect for the
//! next connection and disturb none that is there. TLS 1.3 and 1.2 are spoken (RFC 8996 forbids what is older).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CertificateFacts, ServerTlsError, provider};
use super::channel::server_bindings;
use crate::address::Domain;
use crate::config::TlsFiles;
use crate::net::Stream;
use crate::sasl::ChannelBindings;

/// What a server needs for TLS; cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

/// A certificate, where it comes from and how it is, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// What it says.
    #[serde(flatten)]
    pub facts: CertificateFacts,
    /// Where it comes from.
    pub origin: Origin,
    /// Why the files that are there now were not taken; what was read before is still shown.
    pub problem: Option<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From files of the operator.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Issued to us by a CA.
    Acme,
    /// Made here: nobody else vouches for it.
    SelfSigned,
}

/// What came of looking at a pair of files again.
#[derive(Debug)]
pub enum Refreshed {
    /// Another certificate is shown now.
    Changed(CertificateFacts),
    /// The files can be used again, and hold what is shown.
    Mended(TlsFiles),
    /// They cannot be used: what was read before is still shown.
    Failed(ServerTlsError),
}

impl ServerTls {
    /// Takes certificates and keys from files, at least one pair; the first is shown to whoever asks for no name, or one
    /// that none is for. It blocks; the files are small.
    pub fn load(files: &[TlsFiles]) -> Result<Self, ServerTlsError> {
        Self::new(Sources { made: None, files: read_all(files)? })
    }

    /// Takes the certificate that a CA issued before, or makes one for these names until it issues the first, and those
    /// from files for other names.
    pub fn by_acme(
        issued: Option<Certificate>,
        names: &[Domain],
        files: &[TlsFiles],
    ) -> Result<Self, ServerTlsError> {
        let made = match issued {
            Some(issued) => (Origin::Acme, Arc::new(issued)),
            None => (Origin::SelfSigned, Arc::new(Certificate::self_signed(names)?)),
        };
        Self::new(Sources { made: Some(made), files: read_all(files)? })
    }

    /// Makes a certificate for these names that nobody else vouches for; it lives as long as the process.
    pub fn self_signed(names: &[Domain]) -> Result<Self, ServerTlsError> {
        Self::by_acme(None, names, &[])
    }

    fn new(sources: Sources) -> Result<Self, ServerTlsError> {
        let shown = ArcSwap::from_pointee(sources.shown());
        let certificates = Arc::new(Certificates { shown, sources: Mutex::new(sources) });
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        Ok(Self { config: Arc::new(config), certificates })
    }

    /// Reads these files in place of those before; new connections get what they hold. On an error all stays as it was.
    pub fn reload(&self, files: &[TlsFiles]) -> Result<(), ServerTlsError> {
        let read = read_all(files)?;
        self.certificates.change(|sources| sources.files = read);
        Ok(())
    }

    /// Shows the certificate that a CA has issued, in place of the one before.
    pub fn set_issued(&self, certificate: Certificate) {
        self.certificates.change(|sources| sources.made = Some((Origin::Acme, Arc::new(certificate))));
    }

    /// What the certificate says that a CA issued; `None` where there is none yet.
    pub fn issued(&self) -> Option<CertificateFacts> {
        let sources = self.certificates.sources.lock();
        let issued = sources.made.as_ref().filter(|(origin, _)| *origin == Origin::Acme);
        issued.map(|(_, certificate)| certificate.facts().clone())
    }

    /// The files that certificates come from.
    pub fn files(&self) -> Vec<TlsFiles> {
        self.certificates.sources.lock().files.iter().map(|from| from.files.clone()).collect()
    }

    /// Reads all files again, each pair for itself; one that cannot be used leaves what it held before. What comes back is
    /// news for the log: a problem is told once.
    pub fn refresh(&self) -> Vec<Refreshed> {
        let mut news = Vec::new();
        self.certificates.change(|sources| {
            news.extend(sources.files.iter_mut().filter_map(FromFiles::refresh));
        });
        news
    }

    /// What `tokio_rustls::TlsAcceptor` takes.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The chain that a client is shown that asks for no name, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.certificates.shown.load().first().map(|first| first.chain().to_vec()).unwrap_or_default()
    }

    /// What SASL can bind to on a connection that we accepted.
    pub fn bindings(&self, stream: &Stream) -> ChannelBindings {
        let Stream::Tls(tls) = stream else { return ChannelBindings::default() };
        let tokio_rustls::TlsStream::Server(tls) = &**tls else { return ChannelBindings::default() };
        let shown = self.certificates.shown.load();
        let leaf = choose(&shown, tls.get_ref().1.server_name()).and_then(|chosen| chosen.chain().first());
        server_bindings(stream, leaf.map(AsRef::as_ref))
    }

    /// All certificates, in the order in which they are looked through.
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.certificates.sources.lock().status()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// The certificates of the moment.
#[derive(Debug)]
struct Certificates {
    /// What handshakes choose from, without waiting for anybody.
    shown: ArcSwap<Vec<Arc<Certificate>>>,
    /// Where they come from. `shown` follows.
    sources: Mutex<Sources>,
}

#[derive(Debug)]
struct Sources {
    /// Not from the operator's files; goes before them.
    made: Option<(Origin, Arc<Certificate>)>,
    files: Vec<FromFiles>,
}

#[derive(Debug)]
struct FromFiles {
    files: TlsFiles,
    certificate: Arc<Certificate>,
    problem: Option<String>,
}

impl Certificates {
    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock();
        change(&mut sources);
        self.shown.store(Arc::new(sources.shown()));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        choose(&self.shown.load(), hello.server_name()).map(|chosen| chosen.certified.clone())
    }
}

/// The first that is for this name, or the first of all: RFC 6066 §3 lets us answer with it.
fn choose<'a>(shown: &'a [Arc<Certificate>], name: Option<&str>) -> Option<&'a Arc<Certificate>> {
    let fitting = name.and_then(|name| shown.iter().find(|certificate| certificate.is_for(name)));
    fitting.or(shown.first())
}

impl Sources {
    fn shown(&self) -> Vec<Arc<Certificate>> {
        let made = self.made.iter().map(|(_, certificate)| certificate);
        made.chain(self.files.iter().map(|from| &from.certificate)).cloned().collect()
    }

    fn status(&self) -> Vec<CertificateStatus> {
        let made = self.made.iter().map(|(origin, certificate)| CertificateStatus {
            facts: certificate.facts().clone(),
            origin: origin.clone(),
            problem: None,
        });
        let from_files = self.files.iter().map(|from| CertificateStatus {
            facts: from.certificate.facts().clone(),
            origin: Origin::Files {
                certificate: from.files.certificate.clone(),
                key: from.files.key.clone(),
            },
            problem: from.problem.clone(),
        });
        made.chain(from_files).collect()
    }
}

impl FromFiles {
    fn read(files: &TlsFiles) -> Result<Self, ServerTlsError> {
        let certificate = Arc::new(Certificate::from_files(files)?);
        Ok(Self { files: files.clone(), certificate, problem: None })
    }

    fn refresh(&mut self) -> Option<Refreshed> {
        match Certificate::from_files(&self.files) {
            Ok(read) => {
                let mended = self.problem.take().is_some();
                if read.chain() != self.certificate.chain() {
                    self.certificate = Arc::new(read);
                    return Some(Refreshed::Changed(self.certificate.facts().clone()));
                }
                mended.then(|| Refreshed::Mended(self.files.clone()))
            }
            Err(error) => {
                let text = error.to_string();
                let told = self.problem.replace(text.clone()) == Some(text);
                (!told).then_some(Refreshed::Failed(error))
            }
        }
    }
}

fn read_all(files: &[TlsFiles]) -> Result<Vec<FromFiles>, ServerTlsError> {
    files.iter().map(FromFiles::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificates in files.
    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        /// Writes a new certificate for a name, and its key.
        fn write(&self, name: &str) -> TlsFiles {
            let path = |kind: &str| self.dir.path().join(format!("{name}.{kind}.pem"));
            let files = TlsFiles { certificate: path("cert"), key: path("key") };
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&files.certificate, made.cert.pem()).unwrap();
            std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
            files
        }
    }

    #[test]
    fn what_files_hold_is_shown_and_changes_on_reload() {
        let world = World::new();
        let files = [world.write("mx.example.org")];
        let tls = ServerTls::load(&files).unwrap();
        let (config, before) = (tls.config(), tls.chain());
        world.write("mx.example.org");
        assert_eq!(tls.chain(), before);
        tls.reload(&files).unwrap();
        assert_ne!(tls.chain(), before);
        assert!(Arc::ptr_eq(&config, &tls.config()));
    }

    #[test]
    fn a_bad_reload_keeps_all_old_certificates() {
        let world = World::new();
        let files = ["a.example.org", "b.example.org"].map(|name| world.write(name));
        let tls = ServerTls::load(&files).unwrap();
        let before = tls.status();
        world.write("a.example.org");
        std::fs::write(&files[1].certificate, "").unwrap();
        assert!(tls.reload(&files).is_err());
        assert_eq!(tls.status(), before);
    }

    #[test]
    fn a_refresh_takes_each_pair_for_itself_and_tells_a_problem_once() {
        let world = World::new();
        let files = ["a.example.org", "b.example.org"].map(|name| world.write(name));
        let tls = ServerTls::load(&files).unwrap();
        let before = tls.status();
        assert!(tls.refresh().is_empty(), "nothing has changed");

        world.write("a.example.org");
        let good = std::fs::read(&files[1].certificate).unwrap();
        std::fs::write(&files[1].certificate, "").unwrap();
        let news = tls.refresh();
        assert!(matches!(&news[..], [Refreshed::Changed(_), Refreshed::Failed(_)]), "{news:?}");
        let status = tls.status();
        assert_ne!(status[0].facts, before[0].facts);
        assert_eq!(status[1].facts, before[1].facts, "what was read before is still shown");
        assert!(status[1].problem.as_ref().unwrap().contains("no certificate in it"));
        assert!(tls.refresh().is_empty(), "told already");

        std::fs::write(&files[1].certificate, good).unwrap();
        let news = tls.refresh();
        assert!(matches!(&news[..], [Refreshed::Mended(_)]), "{news:?}");
        assert_eq!(tls.status()[1].problem, None);
    }

    #[test]
    fn what_a_ca_issues_takes_the_place_of_what_was_made() {
        let world = World::new();
        let names = [Domain::parse("mx.example.org").unwrap()];
        let tls = ServerTls::by_acme(None, &names, &[world.write("b.example.org")]).unwrap();
        let origins = || tls.status().into_iter().map(|one| one.origin).collect::<Vec<_>>();
        assert!(matches!(origins()[..], [Origin::SelfSigned, Origin::Files { .. }]));
        assert_eq!(tls.issued(), None);
        let issued = Certificate::self_signed(&names).unwrap();
        let facts = issued.facts().clone();
        tls.set_issued(issued);
        assert!(matches!(origins()[..], [Origin::Acme, Origin::Files { .. }]));
        assert_eq!(tls.issued(), Some(facts));
        tls.reload(&[]).unwrap();
        assert!(matches!(origins()[..], [Origin::Acme]));
    }

    #[test]
    fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
        let world = World::new();
        let files = ["a.example.org", "*.example.org", "b.example.org"].map(|name| world.write(name));
        let shown = ServerTls::load(&files).unwrap().certificates.shown.load_full();
        for (asked, first_name) in [
            (Some("a.example.org"), "a.example.org"),
            (Some("B.example.org"), "*.example.org"),
            (Some("elsewhere.example.net"), "a.example.org"),
            (None, "a.example.org"),
        ] {
            assert_eq!(choose(&shown, asked).unwrap().facts().names[0], first_name, "{asked:?}");
        }
    }
}
