"""Waypost's adapter for a side-by-side benchmark of mail servers: a release build with a routing script that decides
each message's transport. The binary is $BENCH_OURS, or target/release/waypost of this checkout."""
import os
import subprocess

from peers.base import Base, write

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.environ.get('BENCH_OURS') or os.path.join(HERE, '..', 'target', 'release', 'waypost')

SCRIPT = '''// Decides each message's transport by attempt and domains, as an operator's script does.
fn route(delivery) {
    if delivery.sender_domain == "never.test" { return "direct"; }
    if in_domain(delivery.recipient_domain, ".partner.test") { return "direct"; }
    if delivery.attempt > 50 { return "direct"; }
    if delivery.recipient_domain == "sink.test" { return "sink"; }
    "sink"
}
'''


class Adapter(Base):
    name = 'waypost'
    caps = {'relay', 'local', 'imap'}
    durability = 'append-only log, one fdatasync a group before the 250'

    def available(self):
        if not os.access(BINARY, os.X_OK):
            return f'no binary at {BINARY}: cargo build --release'

    def configure(self, mode):
        self.mode = mode
        write(f'{self.dir}/scripts/global.rhai', SCRIPT)
        imap = f'''
[[listeners]]
kind = "imap"
address = "127.0.0.1:{self.imap_port}"
allow_plaintext_auth = true
''' if mode == 'local' else ''
        write(f'{self.dir}/waypost.toml', f'''
hostname = "bench.test"
data_dir = "data"
scripts_dir = "scripts"

[[listeners]]
kind = "smtp"
address = "127.0.0.1:{self.port}"
relay_from = ["127.0.0.0/8"]
{imap}
[domains."local.test"]
[accounts.user]
addresses = ["user@local.test"]

[transports.sink]
kind = "smtp"
host = "127.0.0.1"
port = {self.sink_port}
tls = "none"
concurrency = 50
concurrency_per_destination = 50

[queue]
retry_first = "2s"
retry_factor = 1.5
retry_max = "10s"

[limits]
connections_per_ip_max = "off"
idle_commands_max = "off"
''')
        if mode == 'local':
            subprocess.run([BINARY, 'account', 'password', 'user', '--stdin', '--config', f'{self.dir}/waypost.toml'],
                           input='pass\n', text=True, check=True, stdout=subprocess.DEVNULL)

    def argv(self):
        return [BINARY, 'serve', '--config', f'{self.dir}/waypost.toml']

    def flush(self):
        subprocess.run([BINARY, 'queue', 'kick', '--all', '--config', f'{self.dir}/waypost.toml'],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
