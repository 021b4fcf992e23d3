//! Pebble, Let's Encrypt's small CA for tests: it validates on ports of its own, and forgets everything when it ends.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::world::{World, wait_for};

/// Where it looks for challenges, instead of 443 and 80.
pub const TLS_PORT: u16 = 5001;
pub const HTTP_PORT: u16 = 5002;
const PORT: u16 = 14_000;
const MANAGEMENT_PORT: u16 = 15_000;

/// An account outside of ACME that it knows when it asks for one.
pub const KEY_ID: &str = "kid-1";
pub const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

pub struct Pebble {
    address: SocketAddr,
    /// The root that its own certificate leads to.
    pub ca_file: PathBuf,
    /// Its settings.
    config: PathBuf,
    dns: SocketAddr,
    management: SocketAddr,
    process: Option<Child>,
}

impl Pebble {
    /// Starts it. `settings` is added to its configuration: `"certificateValidityPeriod": 30`.
    pub fn start(world: &World, last: u8, settings: &str) -> Self {
        let dir = world.dir.path().join("pebble");
        fs::create_dir_all(&dir).unwrap();
        let ip = world.ip(last);
        // A private CA of its own: nobody trusts it unless told to.
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root, root_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![ip.to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(dir.join("ca.pem"), root_pem).unwrap();
        fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        let comma = if settings.is_empty() { "" } else { "," };
        let text = format!(
            r#"{{"pebble": {{
                "listenAddress": "{ip}:{PORT}", "managementListenAddress": "{ip}:{MANAGEMENT_PORT}",
                "certificate": "{dir}/cert.pem", "privateKey": "{dir}/key.pem",
                "httpPort": {HTTP_PORT}, "tlsPort": {TLS_PORT}, "ocspResponderURL": "",
                "externalAccountMACKeys": {{"{KEY_ID}": "{HMAC_KEY}"}}{comma} {settings}
            }}}}"#,
            dir = dir.display(),
        );
        fs::write(dir.join("config.json"), text).unwrap();
        let mut pebble = Self {
            address: SocketAddr::new(ip, PORT),
            ca_file: dir.join("ca.pem"),
            config: dir.join("config.json"),
            dns: world.dns_address(),
            management: SocketAddr::new(ip, MANAGEMENT_PORT),
            process: None,
        };
        pebble.run();
        pebble
    }

    fn run(&mut self) {
        let log = fs::File::create(self.config.with_file_name("log")).unwrap();
        let mut command = Command::new("pebble");
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        command.arg("-config").arg(&self.config).args(["-dnsserver", &self.dns.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("Debian's pebble"));
        wait_for("pebble", || {
            TcpStream::connect(self.address).is_ok() && TcpStream::connect(self.management).is_ok()
        });
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Ends it, and starts one that knows nobody.
    pub fn forget_everything(&mut self) {
        self.stop();
        self.run();
    }

    /// `[tls.acme]` for it, with these lines.
    pub fn acme(&self, lines: &str) -> String {
        let (address, ca_file) = (self.address, self.ca_file.display());
        format!("[tls.acme]\ndirectory = \"https://{address}/dir\"\nca_file = \"{ca_file}\"\n{lines}\n")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}
