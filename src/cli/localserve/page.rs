//! The first page: what runs, and what to type next.

use std::net::SocketAddr;
use std::path::Path;

use super::world::{READER, World};
use crate::config::ListenerKind;

type Address = (ListenerKind, SocketAddr);

/// What is printed when everything runs.
pub(super) fn text(world: &World, home: &[Address], outside: &[Address]) -> String {
    let place = |all: &[Address], kind| all.iter().find(|(k, _)| *k == kind).map(|(_, address)| *address);
    let at = |kind| place(home, kind).map_or_else(|| "off".to_owned(), |address| address.to_string());
    let outside_imap = place(outside, ListenerKind::Imap).map_or_else(|| "off".to_owned(), |a| a.to_string());
    let (smtp, submission, submissions) =
        (at(ListenerKind::Smtp), at(ListenerKind::Submission), at(ListenerKind::Submissions));
    let (imap, imaps) = (at(ListenerKind::Imap), at(ListenerKind::Imaps));
    let (dir, password) = (quoted(&world.dir), &world.password);
    let waypost = program();
    format!(
        r#"
Waypost is running, to play with. Nothing leaves this machine. Ctrl-C stops it.

  here      home.test: ann@home.test and bob@home.test, password {password}
            smtp {smtp}  submission {submission}  submissions {submissions}
            imap {imap}  imaps {imaps}
  outside   outside.test and partner.test: any address; {READER} reads them all (imap {outside_imap}, same password)
            mail gets there in two ways: `direct`, to mx.outside.test, or by way of `smarthost`
  files     {dir}

Type this in another terminal:

  export WAYPOST_CONFIG={dir}/waypost.toml
  alias waypost={waypost}

1. Send a message, and read it outside. "Received: ... by mx.outside.test" says that it came direct:

  swaks --server {submission} --tls --auth PLAIN --auth-user ann --auth-password {password} \
        --from ann@home.test --to carol@outside.test --header 'Subject: hello'
  curl -s --user {READER}:{password} 'imap://{outside_imap}/INBOX;MAILINDEX=1'

2. Ask which way a message would go, and which line of which script says so:

  waypost route explain --account ann --from ann@home.test --to carol@outside.test
  waypost route explain --account ann --from ann@home.test --to carol@partner.test
  waypost route explain --account ann --from ann@home.test --to carol@outside.test --attempt 3

3. Change the way while the server runs, send again, and see "by smarthost.outside.test":

  sed -i 's/attempt >= 3/attempt >= 1/' {dir}/scripts/global.rhai
  swaks --server {submission} --tls --auth PLAIN --auth-user ann --auth-password {password} \
        --from ann@home.test --to carol@outside.test --header 'Subject: another way'
  curl -s --user {READER}:{password} 'imap://{outside_imap}/INBOX;MAILINDEX=2'

4. Send to an address that fails on purpose, and watch the queue try again, the third time by the smarthost:

  sed -i 's/attempt >= 1/attempt >= 3/' {dir}/scripts/global.rhai
  swaks --server {submission} --tls --auth PLAIN --auth-user ann --auth-password {password} \
        --from ann@home.test --to temporary@outside.test
  waypost queue list
  waypost queue kick --all

   Others at outside.test: permanent@, timeout@, and by code 450@ 451@ 452@ 550@ 552@ 553@ 554@.
   What fails for good comes back to ann as a report.

5. Get mail from outside, and read it:

  swaks --server {smtp} --from carol@outside.test --to ann@home.test
  curl -sk --user ann:{password} 'imaps://{imaps}/INBOX;MAILINDEX=1'
  mutt -n -F {dir}/muttrc
  openssl s_client -quiet -crlf -connect {imaps}     then: a login ann {password}

The scripts are in {dir}/scripts, one for each level: account, domain, global.
`waypost check` says what is wrong with them; a broken one never replaces the one that runs.

"#
    )
}

/// How this program can be called again from where it was called.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "waypost".into());
    quoted(&program)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/waypost-x1/a.b")), "/tmp/waypost-x1/a.b");
        assert_eq!(quoted(Path::new("/tmp/it's here")), "'/tmp/it'\\''s here'");
    }
}
