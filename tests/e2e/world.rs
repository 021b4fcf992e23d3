//! The world of a test: a folder, a DNS server, Waypost servers and other peers, each on a loopback address of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::dns::DnsServer;

/// Nothing in these tests takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Every server in these tests listens on the same ports, on an address of its own.
pub const SMTP: u16 = 2525;
pub const SUBMISSION: u16 = 2587;
pub const IMAP: u16 = 2143;

/// A world; everything in it ends with it.
pub struct World {
    pub dir: tempfile::TempDir,
    /// Worlds of tests that run at the same time do not share addresses: 127.PID.NUMBER.x.
    net: (u8, u8),
    dns: DnsServer,
    _runtime: tokio::runtime::Runtime,
}

static WORLDS: AtomicU8 = AtomicU8::new(1);

impl World {
    /// A world with these DNS records; `{net}` stands for the first three octets of its addresses.
    pub fn new(records: &str) -> Self {
        let net = ((std::process::id() % 200) as u8 + 20, WORLDS.fetch_add(1, Ordering::SeqCst));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let records = records.replace("{net}", &format!("127.{}.{}", net.0, net.1));
        let dns = runtime.block_on(DnsServer::start(&records));
        Self { dir: tempfile::tempdir().unwrap(), net, dns, _runtime: runtime }
    }

    /// Where its DNS server answers.
    pub fn dns_address(&self) -> SocketAddr {
        self.dns.address
    }

    /// An address of this world.
    pub fn ip(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.net.0, self.net.1, last))
    }

    /// A Waypost server, configured but not started. `config` is added to what every server here has; `{net}` in it
    /// stands for the first three octets of this world's addresses.
    pub fn waypost(&self, name: &str, last: u8, config: &str) -> Waypost {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(dir.join("scripts")).unwrap();
        let (ip, resolver) = (self.ip(last), self.dns.address);
        let certificate =
            rcgen::generate_simple_self_signed(vec![format!("{name}.test"), ip.to_string()]).unwrap();
        fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
        let tables = config.replace("{net}", &format!("127.{}.{}", self.net.0, self.net.1));
        let text = format!(
            r#"
hostname = "mx.{name}.test"
data_dir = "data"
scripts_dir = "scripts"

[[listeners]]
kind = "smtp"
address = "{ip}:{SMTP}"

[[listeners]]
kind = "submission"
address = "{ip}:{SUBMISSION}"
allow_plaintext_auth = true

[[listeners]]
kind = "imap"
address = "{ip}:{IMAP}"
allow_plaintext_auth = true

[tls]
certificate = "cert.pem"
key = "key.pem"

[dns]
resolvers = ["{resolver}"]

[limits]
connections_per_ip_max = "off"
auth_failure_delay = "off"

[transports.direct]
kind = "direct"
port = {SMTP}

{tables}
"#
        );
        fs::write(dir.join("waypost.toml"), text).unwrap();
        Waypost { dir, ip, process: None }
    }

    /// Postfix's smtp-sink, which takes all mail and writes each message to a file.
    pub fn smtp_sink(&self, last: u8, options: &[&str]) -> Sink {
        let dir = self.dir.path().join(format!("sink-{last}"));
        fs::create_dir_all(&dir).unwrap();
        let address = SocketAddr::new(self.ip(last), SMTP);
        let mut command = Command::new("/usr/sbin/smtp-sink");
        command.current_dir(&dir).args(["-u", "root", "-d", "%M."]).args(options);
        let process = command.arg(address.to_string()).arg("100").stdout(Stdio::null()).spawn();
        let sink = Sink { dir, process: process.expect("smtp-sink of Debian's postfix package") };
        wait_for("smtp-sink", || TcpStream::connect(address).is_ok());
        sink
    }
}

/// A Waypost server in a process of its own.
pub struct Waypost {
    pub dir: PathBuf,
    pub ip: IpAddr,
    process: Option<Child>,
}

impl Waypost {
    /// Writes a routing script.
    pub fn script(&self, file: &str, text: &str) {
        let path = self.dir.join("scripts").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Sets an account's password, as an operator does.
    pub fn password(&self, account: &str, password: &str) {
        let output =
            self.command_with(&["account", "password", account, "--stdin"], &format!("{password}\n"));
        assert!(output.status.success(), "account password: {output:?}");
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.program(&["serve"]);
        command.env("WAYPOST_LOG", "info").stdin(Stdio::null());
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        wait_for("the server", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", self.log());
            [SMTP, SUBMISSION, IMAP]
                .iter()
                .all(|port| TcpStream::connect(SocketAddr::new(self.ip, *port)).is_ok())
                // Commands are answered last of all.
                && UnixStream::connect(self.dir.join("data/control.sock")).is_ok()
        });
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        wait_for("the server to stop", || process.try_wait().unwrap().is_some());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// SIGHUP: reads configuration and scripts anew.
    pub fn reload(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.pid().to_string()]).status().unwrap().success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.args(arguments).arg("--config").arg(self.dir.join("waypost.toml"));
        command
    }

    /// Runs `waypost ARGUMENTS --config ...` and returns what it printed; it must succeed.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = self.command_with(arguments, "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "waypost {arguments:?}: {output:?}");
        text
    }

    /// The same with something on standard input, and however it ends.
    pub fn command_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.program(arguments);
        run(command.stdin(Stdio::piped()), input)
    }

    /// The queue as `queue list --json` prints it.
    pub fn queue(&self) -> serde_json::Value {
        serde_json::from_str(&self.command(&["queue", "list", "--json"])).unwrap()
    }

    /// Where it takes mail from other servers.
    pub fn smtp(&self) -> String {
        format!("{}:{SMTP}", self.ip)
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.dir.display(), self.log());
        }
    }
}

/// A smarthost that takes everything.
pub struct Sink {
    dir: PathBuf,
    process: Child,
}

impl Sink {
    /// The messages it has, each with the envelope in front as smtp-sink writes it.
    pub fn messages(&self) -> Vec<String> {
        let files = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
    }

    /// How many of its messages have this text in them.
    pub fn count(&self, text: &str) -> usize {
        self.messages().iter().filter(|message| message.contains(text)).count()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command with input, and collects what it prints.
pub fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A conversation over TCP, line by line.
pub struct Conversation {
    reader: BufReader<TcpStream>,
}

impl Conversation {
    pub fn with(address: impl std::net::ToSocketAddrs) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The last line of a reply, several lines or one.
    pub fn reply(&mut self) -> String {
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// A command, and the last line of its reply.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.reply()
    }
}
