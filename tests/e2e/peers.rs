//! Servers that others wrote, each in a process of its own, with a configuration, files and addresses of its own: Dovecot,
//! Postfix, Exim, GNU SASL, microsocks, Dante.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::{SMTP, SUBMISSION, World, wait_for};

pub const SUBMISSIONS: u16 = 2465;
pub const SOCKS: u16 = 1080;

/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65534;

/// A process that ends with its test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that servers of several processes take all of them along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Running {
    /// What it says goes with what the test says.
    pub fn new(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

fn start(command: &mut Command, what: &str, ready: impl FnMut() -> bool) -> Running {
    let running = Running::new(command);
    wait_for(what, ready);
    running
}

fn answers(ip: IpAddr, port: u16) -> impl FnMut() -> bool {
    move || TcpStream::connect(SocketAddr::new(ip, port)).is_ok()
}

/// A folder in the world for a server whose processes run as several users.
fn folder(world: &World, name: &str) -> PathBuf {
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = world.dir.path().join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// `cert.pem` and `key.pem` for an address.
fn certificate(dir: &Path, ip: IpAddr) {
    let certificate = rcgen::generate_simple_self_signed(vec![ip.to_string()]).unwrap();
    fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
}

/// A mail server that knows `ann` with the password `secret`. All but Exim, which keeps it, hand all mail to a sink.
pub struct MailServer {
    pub ip: IpAddr,
    dir: PathBuf,
    log: &'static str,
    _running: Vec<Running>,
}

impl MailServer {
    /// Its certificate, which is its own authority.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(self.log)).unwrap_or_default()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.dir.display(), self.log());
        }
    }
}

/// Dovecot with users of its own.
fn dovecot(dir: &Path, services: &str) -> Command {
    fs::create_dir_all(dir.join("home")).unwrap();
    fs::set_permissions(dir.join("home"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(dir.join("users"), "ann:{PLAIN}secret\n").unwrap();
    let at = dir.display();
    let config = format!(
        "base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log
ssl_cert = <{at}/cert.pem
ssl_key = <{at}/key.pem
disable_plaintext_auth = yes
auth_failure_delay = 0
mail_max_userip_connections = 100
auth_mechanisms = login plain cram-md5 scram-sha-1 scram-sha-256
mail_location = maildir:~/mail
passdb {{
  driver = passwd-file
  args = {at}/users
}}
userdb {{
  driver = static
  args = uid={NOBODY} gid={NOBODY} home={at}/home
}}
{services}
"
    );
    fs::write(dir.join("dovecot.conf"), config).unwrap();
    let mut command = Command::new("/usr/sbin/dovecot");
    command.args(["-F", "-c"]).arg(dir.join("dovecot.conf"));
    command
}

/// Dovecot's submission server.
pub fn dovecot_submission(world: &World, last: u8, sink: IpAddr) -> MailServer {
    let (dir, ip) = (folder(world, "dovecot"), world.ip(last));
    certificate(&dir, ip);
    let services = format!(
        "protocols = submission
listen = {ip}
ssl = yes
submission_relay_host = {sink}
submission_relay_port = {SMTP}
service submission-login {{
  inet_listener submission {{
    port = {SUBMISSION}
  }}
  inet_listener submissions {{
    port = {SUBMISSIONS}
    ssl = yes
  }}
}}"
    );
    let running =
        start(&mut dovecot(&dir, &services), "Dovecot's submission server", answers(ip, SUBMISSION));
    MailServer { ip, dir, log: "log", _running: vec![running] }
}

/// Postfix: a smarthost for everybody on port 25, and a sending service that asks Dovecot who may use it.
pub fn postfix(world: &World, last: u8, sink: IpAddr) -> MailServer {
    let auth = folder(world, "postfix-auth");
    certificate(&auth, world.ip(last));
    let services = format!(
        "protocols = none
ssl = no
service auth {{
  unix_listener {}/socket {{
    mode = 0666
  }}
}}",
        auth.display()
    );
    let socket = auth.join("socket");
    let dovecot = start(&mut dovecot(&auth, &services), "Dovecot's SASL server", || socket.exists());

    let (dir, ip) = (folder(world, "postfix"), world.ip(last));
    certificate(&dir, ip);
    postfix_folders(&dir);
    let at = dir.display();
    let main = format!(
        "compatibility_level = 3.6
queue_directory = {at}/queue
data_directory = {at}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {at}/log
maillog_file_prefixes = {at}
myhostname = smarthost.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [{sink}]:{SMTP}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_tls_cert_file = {at}/cert.pem
smtpd_tls_key_file = {at}/key.pem
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_tls_auth_only = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {}
smtpd_error_sleep_time = 0
",
        socket.display()
    );
    let users_only =
        "-o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject";
    let master = format!(
        "{ip}:{SMTP} inet n - n - - smtpd
{ip}:{SUBMISSION} inet n - n - - smtpd {users_only} -o smtpd_tls_security_level=encrypt
{ip}:{SUBMISSIONS} inet n - n - - smtpd {users_only} -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
retry unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"
    );
    fs::create_dir(dir.join("etc")).unwrap();
    fs::write(dir.join("etc/main.cf"), main).unwrap();
    fs::write(dir.join("etc/master.cf"), master).unwrap();
    let mut command = Command::new("/usr/lib/postfix/sbin/master");
    command.arg("-c").arg(dir.join("etc")).arg("-d").env("MAIL_CONFIG", dir.join("etc"));
    let running = start(&mut command, "Postfix", answers(ip, SUBMISSIONS));
    MailServer { ip, dir, log: "log", _running: vec![running, dovecot] }
}

/// The folders of Postfix's queue, with the owners that it asks for.
fn postfix_folders(dir: &Path) {
    let number = |kind: &str, name: &str| -> u32 {
        let output = Command::new("id").args([kind, name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let postfix = number("-u", "postfix");
    let postdrop = fs::read_to_string("/etc/group").unwrap();
    let postdrop = postdrop.lines().find_map(|line| line.strip_prefix("postdrop:x:")?.split(':').next());
    let postdrop: u32 = postdrop.unwrap().parse().unwrap();
    let private = "active bounce corrupt defer deferred flush hold incoming private saved trace";
    for (name, group, mode) in private
        .split(' ')
        .map(|name| (name, None, 0o700))
        .chain([("public", Some(postdrop), 0o710), ("maildrop", Some(postdrop), 0o730)])
    {
        let path = dir.join("queue").join(name);
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(postfix), group).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(dir.join("queue/pid")).unwrap();
    fs::create_dir(dir.join("data")).unwrap();
    chown(dir.join("data"), Some(postfix), None).unwrap();
}

/// Users and groups that a server finds there instead of in the machine's files.
fn users(dir: &Path, more: &str) -> [(&'static str, PathBuf); 4] {
    let id = NOBODY;
    let passwd = format!(
        "root:x:0:0::/:/bin/sh\nnobody:x:{id}:{id}::/:/bin/false\n{more}:x:{id}:{id}::/:/bin/false\n"
    );
    fs::write(dir.join("passwd"), passwd).unwrap();
    fs::write(dir.join("group"), format!("root:x:0:\nnogroup:x:{id}:\n{more}:x:{id}:\nmail:x:8:\n")).unwrap();
    let wrapper = "/usr/lib/x86_64-linux-gnu/libnss_wrapper.so";
    [
        ("LD_PRELOAD", wrapper.into()),
        ("NSS_WRAPPER_PASSWD", dir.join("passwd")),
        ("NSS_WRAPPER_GROUP", dir.join("group")),
        ("NSS_WRAPPER_SHADOW", dir.join("shadow")),
    ]
}

/// GNU SASL behind a little SMTP, for SCRAM that is bound to the channel: `same_channel`, or another than the client's.
/// It keeps what it is sent.
pub fn gnu_sasl(world: &World, last: u8, same_channel: bool) -> MailServer {
    let (dir, ip) = (folder(world, &format!("gnu-sasl-{last}")), world.ip(last));
    certificate(&dir, ip);
    // Debian's own Python, for which its packages are.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/sending_service.py"));
    command.arg(ip.to_string()).arg(SUBMISSION.to_string()).arg(&dir);
    command.arg(if same_channel { "same" } else { "other" });
    let running = start(&mut command, "GNU SASL's server", answers(ip, SUBMISSION));
    MailServer { ip, dir, log: "log", _running: vec![running] }
}

/// Dante, which takes connections on an address; with a user and a password, from whoever knows them. Its log names
/// whom it served.
pub struct Dante {
    dir: PathBuf,
    _running: Running,
}

impl Dante {
    pub fn start(world: &World, last: u8, login: Option<(&str, &str)>) -> Self {
        let (dir, ip) = (folder(world, &format!("dante-{last}")), world.ip(last));
        let method = if login.is_some() { "username" } else { "none" };
        let config = format!(
            "logoutput: {}/log
internal: {ip} port = {SOCKS}
external: 127.0.0.1
user.privileged: root
user.unprivileged: nobody
clientmethod: none
socksmethod: {method}
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect }}
",
            dir.display()
        );
        fs::write(dir.join("danted.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/danted");
        command.arg("-f").arg(dir.join("danted.conf")).args(["-N", "1"]);
        if let Some((name, password)) = login {
            let hashed = Command::new("openssl").args(["passwd", "-6", password]).output().unwrap().stdout;
            let hashed = String::from_utf8(hashed).unwrap();
            fs::write(dir.join("shadow"), format!("{name}:{}:19000:0:99999:7:::\n", hashed.trim())).unwrap();
            command.envs(users(&dir, name));
        }
        let running = start(&mut command, "Dante", answers(ip, SOCKS));
        Self { dir, _running: running }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// microsocks on an address, whose connections come from another.
pub fn microsocks(world: &World, last: u8, from: u8, options: &[&str]) -> Running {
    let (ip, from) = (world.ip(last), world.ip(from).to_string());
    let mut command = Command::new("microsocks");
    command.args(["-i", &ip.to_string(), "-p", &SOCKS.to_string(), "-b", &from]).args(options);
    start(&mut command, "microsocks", answers(ip, SOCKS))
}

/// Exim as Debian builds it, unpacked by tests/run beside the tests: its package and Postfix's exclude each other. It
/// has SCRAM from Cyrus SASL, CRAM-MD5, PLAIN and LOGIN of its own; SCRAM-PLUS it cannot offer, for it was built without GNU
/// SASL, and tells Cyrus SASL nothing of the TLS that a mechanism could be bound to.
pub fn exim(world: &World, last: u8) -> MailServer {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    assert!(root.join("usr/sbin/exim4").exists(), "no Exim in {}: tests/run puts it there", root.display());
    let (dir, ip) = (folder(world, "exim"), world.ip(last));
    certificate(&dir, ip);
    let environment = users(&dir, "Debian-exim");
    let program = |path: PathBuf| {
        let mut command = Command::new(path);
        command.envs(environment.clone()).env("SASL_CONF_PATH", &dir);
        command
    };
    let at = dir.display();
    let sasl = format!("pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {at}/sasldb\n");
    fs::write(dir.join("exim.conf"), sasl).unwrap();
    let mut password = program("/usr/sbin/saslpasswd2".into());
    password.args(["-p", "-c", "-u", "exim.test", "-f"]).arg(dir.join("sasldb")).arg("ann");
    let output = crate::world::run(&mut password, "secret");
    assert!(output.status.success(), "{output:?}");

    fs::write(dir.join("exim4.conf"), exim_config(&dir, ip)).unwrap();
    fs::create_dir(dir.join("spool")).unwrap();
    for name in ["", "spool", "sasldb", "key.pem"] {
        chown(dir.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = program(root.join("usr/sbin/exim4"));
    command.arg("-C").arg(dir.join("exim4.conf")).arg("-bdf");
    let running = start(&mut command, "Exim", answers(ip, SUBMISSIONS));
    MailServer { ip, dir, log: "mainlog", _running: vec![running] }
}

fn exim_config(dir: &Path, ip: IpAddr) -> String {
    let at = dir.display();
    format!(
        "exim_user = nobody
exim_group = nogroup
never_users =
keep_environment = SASL_CONF_PATH
queue_only
smtp_accept_max = 0
spool_directory = {at}/spool
log_file_path = {at}/%slog
pid_file_path = {at}/pid
primary_hostname = exim.test
local_interfaces = {ip}
daemon_smtp_ports = {SUBMISSION} : {SUBMISSIONS}
tls_on_connect_ports = {SUBMISSIONS}
tls_advertise_hosts = *
tls_certificate = {at}/cert.pem
tls_privatekey = {at}/key.pem
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept authenticated = *
begin authenticators
scram_sha_256:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-256
  server_realm = exim.test
  server_set_id = $auth1
scram_sha_1:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-1
  server_realm = exim.test
  server_set_id = $auth1
cram_md5:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{ann}}{{secret}}fail}}
  server_set_id = $auth1
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{ann}}}}{{eq{{$auth3}}{{secret}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{ann}}}}{{eq{{$auth2}}{{secret}}}}}}}}
  server_set_id = $auth1
"
    )
}
