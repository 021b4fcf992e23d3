//! Transports against servers that others wrote: Dovecot as the sending service, microsocks as the proxy.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::first_mail::account;
use crate::tools::submit;
use crate::world::{SMTP, SUBMISSION, World, wait_for};

pub const SUBMISSIONS: u16 = 2465;
const SOCKS: u16 = 1080;

/// A process that ends with its test.
pub struct Running(Child);

impl Running {
    pub fn new(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that Dovecot takes its children along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

pub fn start(command: &mut Command, what: &str, address: SocketAddr) -> Running {
    let running = Running::new(command);
    wait_for(what, || TcpStream::connect(address).is_ok());
    running
}

/// Dovecot's submission server, which knows `ann` with the password `secret` and hands all mail to a sink.
pub struct Dovecot {
    pub dir: PathBuf,
    _running: Running,
}

impl Dovecot {
    pub fn start(world: &World, last: u8, sink: IpAddr) -> Self {
        let (dir, ip) = (world.dir.path().join("dovecot"), world.ip(last));
        fs::create_dir_all(dir.join("home")).unwrap();
        // Its processes run as several users.
        fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.join("home"), fs::Permissions::from_mode(0o777)).unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec![ip.to_string()]).unwrap();
        fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
        fs::write(dir.join("users"), "ann:{PLAIN}secret\n").unwrap();
        let at = dir.display();
        let config = format!(
            "protocols = submission
listen = {ip}
base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log
ssl = yes
ssl_cert = <{at}/cert.pem
ssl_key = <{at}/key.pem
disable_plaintext_auth = yes
auth_failure_delay = 0
auth_mechanisms = login plain cram-md5 scram-sha-1 scram-sha-256
mail_location = maildir:~/mail
submission_relay_host = {sink}
submission_relay_port = {SMTP}
passdb {{
  driver = passwd-file
  args = {at}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={at}/home
}}
service submission-login {{
  inet_listener submission {{
    port = {SUBMISSION}
  }}
  inet_listener submissions {{
    port = {SUBMISSIONS}
    ssl = yes
  }}
}}
"
        );
        fs::write(dir.join("dovecot.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/dovecot");
        command.args(["-F", "-c"]).arg(dir.join("dovecot.conf"));
        let running = start(&mut command, "Dovecot's submission server", SocketAddr::new(ip, SUBMISSION));
        Self { dir, _running: running }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// Mail for NAME@outside.test goes by the transport of that name.
const BY_LOCAL_PART: &str = "fn route(d) { d.recipient_local }";

#[test]
fn a_sending_service_takes_each_mechanism_and_no_wrong_password() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let dovecot = Dovecot::start(&world, 40, world.ip(30));
    let ca = dovecot.dir.join("cert.pem");
    let transport = |name: &str, kind: &str, port: u16, rest: &str| {
        format!(
            "[transports.{name}]\nkind = \"{kind}\"\nhost = \"{{net}}.40\"\nport = {port}\nusername = \"ann\"\n\
             ca_file = \"{}\"\n{rest}\n",
            ca.display()
        )
    };
    let secret = "password = \"secret\"";
    let mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"];
    let mut config = account("ann", "a.test");
    for mechanism in mechanisms {
        let rest = format!("{secret}\nmechanisms = \"{mechanism}\"");
        config += &transport(&mechanism.to_lowercase(), "submission", SUBMISSION, &rest);
    }
    config += &transport("strongest", "submissions", SUBMISSIONS, secret);
    config += &transport("wrong", "submission", SUBMISSION, "password = \"guess\"");
    config +=
        &transport("wrong-plain", "submission", SUBMISSION, "password = \"guess\"\nmechanisms = \"PLAIN\"");
    config += &transport(
        "unencrypted",
        "submission",
        SUBMISSION,
        &format!("{secret}\ntls = \"none\"\nmechanisms = \"PLAIN\""),
    );
    config += &transport("stranger", "submission", SUBMISSION, secret).replace("ca_file", "#");
    let mut server = world.waypost("a", 10, &config);
    server.password("ann", "secret");
    server.script("global.rhai", BY_LOCAL_PART);
    server.start();
    let send = |name: &str| {
        submit(&server, "ann", "ann@a.test", &[&format!("{name}@outside.test")], &format!("by {name};"));
    };
    for mechanism in mechanisms {
        let name = mechanism.to_lowercase();
        send(&name);
        wait_for(&format!("the mail by {mechanism}"), || sink.count(&format!("by {name};")) == 1);
        assert!(dovecot.log().contains(&format!("method={mechanism},")), "{}", dovecot.log());
    }
    send("strongest");
    wait_for("the mail by TLS at once", || sink.count("by strongest;") == 1);
    assert_eq!(dovecot.log().matches("method=SCRAM-SHA-256,").count(), 2, "{}", dovecot.log());

    for (name, words) in [
        ("wrong", "auth"),
        ("wrong-plain", "auth"),
        // Dovecot does not even offer PLAIN before TLS; what is offered there is not allowed here.
        ("unencrypted", "no authentication mechanism that is allowed here"),
        ("stranger", "certificate is not valid"),
    ] {
        send(name);
        let deferred = || {
            let log = server.log();
            log.lines().any(|line| line.contains(&format!("{name}@outside.test")) && line.contains(words))
        };
        wait_for(&format!("{name} to be put off"), deferred);
        assert_eq!(sink.count(&format!("by {name};")), 0);
    }
    let queue = server.queue().to_string();
    for name in ["wrong", "wrong-plain", "unencrypted", "stranger"] {
        assert!(queue.contains(&format!("{name}@outside.test")), "{name} does not wait: {queue}");
    }
}

#[test]
fn mail_goes_out_from_the_address_of_the_proxy() {
    let world = World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.30");
    let sink = world.smtp_sink(30, &[]);
    let proxy = |last: u8, from: u8, options: &[&str]| {
        let (ip, from) = (world.ip(last).to_string(), world.ip(from).to_string());
        let mut command = Command::new("microsocks");
        command.args(["-i", &ip, "-p", &SOCKS.to_string(), "-b", &from]).args(options);
        start(&mut command, "microsocks", SocketAddr::new(world.ip(last), SOCKS))
    };
    let (_open, _closed) = (proxy(50, 51, &[]), proxy(60, 61, &["-u", "tim", "-P", "secret"]));
    let login = "username = \"tim\"\npassword = ";
    let config = format!(
        "{}
[transports.open]
kind = \"socks\"
port = {SMTP}
proxy = \"{{net}}.50\"
remote_ips = [\"{{net}}.51\"]
remote_hostname = \"away.test\"
[transports.closed]
kind = \"socks\"
port = {SMTP}
proxy = \"{{net}}.60:{SOCKS}\"
{login}\"secret\"
[transports.wrong]
kind = \"socks\"
port = {SMTP}
proxy = \"{{net}}.60:{SOCKS}\"
{login}\"guess\"
",
        account("ann", "a.test")
    );
    let mut server = world.waypost("a", 10, &config);
    server.password("ann", "secret");
    server.script("global.rhai", BY_LOCAL_PART);
    server.start();
    for (name, from, helo) in [("open", 51, "away.test"), ("closed", 61, "mx.a.test")] {
        submit(&server, "ann", "ann@a.test", &[&format!("{name}@outside.test")], &format!("through {name};"));
        wait_for("mail through the proxy", || sink.count(&format!("through {name};")) == 1);
        let messages = sink.messages();
        let message = messages.iter().find(|message| message.contains(&format!("through {name};"))).unwrap();
        for words in [format!("X-Client-Addr: {}", world.ip(from)), format!("X-Helo-Args: {helo}")] {
            assert!(message.contains(&words), "no {words:?} in {message}");
        }
    }
    submit(&server, "ann", "ann@a.test", &["wrong@outside.test"], "through wrong;");
    wait_for("the proxy to refuse", || server.log().contains("wrong user name or password"));
    assert_eq!(sink.count("through wrong;"), 0);
}

#[test]
fn a_rate_holds_mail_back_and_shows_it_as_what_it_is() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let transports = |minute: &str| {
        let to_sink = format!("kind = \"smtp\"\nhost = \"{{net}}.30\"\nport = {SMTP}");
        format!(
            "{}[transports.second]\n{to_sink}\nmessages_per_second = 1\n\
             [transports.minute]\n{to_sink}\nmessages_per_minute = {minute}\n",
            account("ann", "a.test")
        )
    };
    let mut server = world.waypost("a", 10, &transports("1"));
    server.password("ann", "secret");
    server.script("global.rhai", BY_LOCAL_PART);
    server.start();
    let send = |name: &str, number: u32| {
        submit(
            &server,
            "ann",
            "ann@a.test",
            &[&format!("{name}@outside.test")],
            &format!("{name} {number};"),
        );
    };
    let start = std::time::Instant::now();
    (1..=3).for_each(|number| send("second", number));
    wait_for("mail at its rate", || sink.count("Subject: second") == 3);
    assert!(start.elapsed() >= std::time::Duration::from_secs(2), "{:?}", start.elapsed());

    send("minute", 1);
    wait_for("what the rate allows", || sink.count("Subject: minute 1;") == 1);
    send("minute", 2);
    wait_for("what waits to say so", || {
        server.command(&["queue", "list"]).contains("0 attempts, waits for the rate of transport minute")
    });
    let listed = &server.queue()["messages"][0]["recipients"][0];
    assert_eq!((&listed["in_line"]["rate"], &listed["problem"]), (&true.into(), &serde_json::Value::Null));
    send("second", 4);
    wait_for("another transport", || sink.count("Subject: second 4;") == 1);
    assert_eq!(sink.count("Subject: minute 2;"), 0);

    let waypost_toml = server.dir.join("waypost.toml");
    let text = fs::read_to_string(&waypost_toml).unwrap().replace("per_minute = 1", "per_minute = \"off\"");
    fs::write(waypost_toml, text).unwrap();
    server.reload();
    wait_for("what waited", || sink.count("Subject: minute 2;") == 1);
}
