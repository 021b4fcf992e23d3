//! Another implementation, dkimpy, verifies what we sign, and we verify what it signs; both ask the same DNS server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use tokio::process::Command;

use super::*;

/// Mail with its keys.
pub(super) struct Signed {
    pub(super) text: String,
    pub(super) zone: String,
}

/// `verify PORT FILE` prints a line for each signature; `sign SELECTOR KEYFILE ALGORITHM HEADER BODY LENGTH FILE` prints
/// the message, signed.
const DKIMPY: &str = r#"
import sys, dkim, dns.resolver
what, args = sys.argv[1], sys.argv[2:]
if what == "verify":
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], int(args[0])
    def txt(name, timeout=5):
        answer = resolver.resolve(name.decode() if isinstance(name, bytes) else name, "TXT")
        return b"".join(answer[0].strings)
    message = open(args[1], "rb").read()
    count = message.split(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    for index in range(count):
        print(dkim.DKIM(message).verify(idx=index, dnsfunc=txt))
else:
    selector, key, algorithm, header, body, length, file = args
    message = open(file, "rb").read()
    signature = dkim.sign(message, selector.encode(), b"example.org", open(key, "rb").read(),
        canonicalize=(header.encode(), body.encode()), signature_algorithm=algorithm.encode(), length=length == "yes")
    sys.stdout.buffer.write(signature + message)
"#;

async fn python(arguments: &[&str]) -> String {
    let output =
        Command::new("/usr/bin/python3").args(["-c", DKIMPY]).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The key in the form that dkimpy reads: PKCS#1 for RSA, the seed alone for Ed25519.
async fn dkimpy_key(folder: &Folder, algorithm: Algorithm, pem: &str) -> String {
    let path = folder.file("key.pem", pem.as_bytes());
    match algorithm {
        Algorithm::RsaSha256 => {
            let traditional = format!("{path}.rsa");
            let mut command = Command::new("openssl");
            command.args(["rsa", "-traditional", "-in", &path, "-out", &traditional]);
            assert!(command.output().await.unwrap().status.success(), "openssl reads our key");
            traditional
        }
        Algorithm::Ed25519Sha256 => {
            let der = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            let seed = der.secret_pkcs8_der().last_chunk::<32>().unwrap();
            folder.file("key.seed", STANDARD.encode(seed).as_bytes())
        }
    }
}

/// A key that dkimpy signs with.
struct Python {
    folder: Folder,
    signer: Signer,
    key: String,
}

impl Python {
    async fn new(algorithm: Algorithm) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (key, pem) = PrivateKey::generate(algorithm).unwrap();
        let signer = Signer { domain: "example.org".to_owned(), selector: "py".to_owned(), key };
        let key = dkimpy_key(&folder, algorithm, &pem).await;
        Self { folder, signer, key }
    }

    async fn sign(&self, header: &str, body: &str, length: &str, message: &str) -> String {
        let file = self.folder.file("message.eml", message.as_bytes());
        let algorithm = self.signer.key.algorithm().as_str();
        python(&["sign", "py", &self.key, algorithm, header, body, length, &file]).await
    }
}

/// With `l=`.
pub(super) async fn python_signed_part() -> Signed {
    let message = "From: ann@example.org\r\nSubject: x\r\n\r\nhello\r\nthere\r\n";
    let python = Python::new(Algorithm::RsaSha256).await;
    Signed { text: python.sign("relaxed", "simple", "yes", message).await, zone: zone_of(&python.signer) }
}

/// Ends of bodies, folded fields, white space, fields that are there twice, text that is not ASCII.
fn messages() -> Vec<String> {
    let head = "From: Ann <ann@example.org>\r\nTO:bob@example.net,\r\n\t  eve@example.net \r\nSubject:  \r\n two\t words \r\n\
        Date: Sun, 22 Nov 2026 15:57:18 +0000\r\nMessage-Id: <1@example.org>\r\nReceived: a\r\nReceived: b\r\n";
    let bodies = [
        "",
        "\r\n",
        "one line",
        "a  b\t \r\n \r\n\r\n\r\nc \r\n\r\n\t\r\n\r\n",
        "  leading\r\n.\r\nü \u{2028}\r\n",
    ];
    bodies.iter().map(|body| format!("{head}\r\n{body}")).collect()
}

#[tokio::test]
async fn dkimpy_verifies_what_we_sign() {
    let (ed, rsa) = (signer("ed", Algorithm::Ed25519Sha256), signer("rsa", Algorithm::RsaSha256));
    let dns = DnsServer::start(&[zone_of(&ed), zone_of(&rsa)].concat()).await;
    let folder = Folder(tempfile::tempdir().unwrap());
    let port = dns.address.port().to_string();
    for message in messages() {
        let mail = signed(&message, &[&ed, &rsa]);
        let file = folder.file("message.eml", mail.as_bytes());
        assert_eq!(python(&["verify", &port, &file]).await, "True\nTrue\n", "{mail}");
    }
    let changed = folder.file("changed.eml", signed(MESSAGE, &[&rsa]).replace("hello", "hullo").as_bytes());
    assert_eq!(python(&["verify", &port, &changed]).await, "False\n", "dkimpy does look");
}

#[tokio::test]
async fn we_verify_what_dkimpy_signs() {
    for algorithm in [Algorithm::Ed25519Sha256, Algorithm::RsaSha256] {
        let python = Python::new(algorithm).await;
        let dns = DnsServer::start(&zone_of(&python.signer)).await;
        let resolver = Resolver::new(&dns.config());
        for (header, body) in
            [("simple", "simple"), ("simple", "relaxed"), ("relaxed", "simple"), ("relaxed", "relaxed")]
        {
            for message in messages() {
                let mail = python.sign(header, body, "no", &message).await;
                let all = check(&resolver, &mail).await;
                assert_eq!(words(&all), ["pass"], "{header}/{body} {all:?}\n{mail}");
            }
        }
    }
}
