//! AUTH (RFC 4954): showing a smarthost who we are.
//!
//! Which mechanism is used, and what is said in it, is decided in [`crate::sasl`]; here it goes over the wire. Whatever
//! goes wrong is the operator's to mend, and the mail waits for it: see `classify::at_smarthost`.

use super::classify::{Cause, Failure};
use super::session::Session;
use crate::config::Login;
use crate::outcome::Stage;
use crate::sasl::{self, ClientError, ClientExchange, Facts};

/// Challenges answered in one exchange; no mechanism has more than three.
const CHALLENGES_MAX: usize = 5;
/// RFC 4954 §4: an initial response that makes the command longer than RFC 5321 allows waits to be asked for.
const COMMAND_BYTES_MAX: usize = 510;

/// Logs in on a session that has said EHLO. After a failure the session is over.
pub(super) async fn authenticate(mut session: Session, login: &Login) -> Result<Session, Failure> {
    match exchange(&mut session, login).await {
        Ok(()) => Ok(session),
        Err(cause) => {
            session.quit().await;
            Err(cause)
        }
    }
}

async fn exchange(session: &mut Session, login: &Login) -> Result<(), Failure> {
    let failed = |cause| Failure::new(Stage::Auth, cause);
    let bindings = crate::tls::client_bindings(session.stream());
    let facts = Facts {
        tls: session.seen.tls.is_some(),
        plaintext_allowed: login.allow_plaintext,
        bindings: &bindings,
    };
    let choice = sasl::choose(&session.extensions.auth, &login.mechanisms, facts);
    let choice = choice.map_err(|why| failed(Cause::NoMechanism(why)))?;
    let exchange = ClientExchange::new(&choice, &login.username, login.password.reveal());
    let mut exchange = exchange.map_err(|why| failed(Cause::Sasl(why)))?;
    let mut line = format!("AUTH {}", choice.mechanism);
    let mut initial = exchange.initial().map(|message| sasl::encode(&message));
    if let Some(message) = initial.take_if(|message| line.len() + 1 + message.len() <= COMMAND_BYTES_MAX) {
        line = format!("{line} {}", if message.is_empty() { "=" } else { &message });
    }
    for _ in 0..=CHALLENGES_MAX {
        let reply = session.command(&line, Stage::Auth, "the reply to AUTH").await?;
        if reply.is_positive() {
            return exchange.finish().map_err(|why| failed(Cause::Sasl(why)));
        }
        if reply.code != 334 {
            return Err(failed(Cause::Reply(reply)));
        }
        if let Some(message) = initial.take() {
            line = message;
            continue;
        }
        let challenge = sasl::decode(reply.lines.first().map_or("", String::as_str).trim().as_bytes());
        let response = match challenge {
            Ok(challenge) => {
                let (answered, response) = respond(exchange, challenge).await.map_err(failed)?;
                exchange = answered;
                response.map_err(Cause::Sasl)
            }
            Err(_) => Err(Cause::NotBase64),
        };
        match response {
            Ok(response) => line = sasl::encode(&response),
            Err(cause) => {
                // RFC 4954 §4: `*` gives the exchange up; what the peer says to that means nothing.
                let _ = session.command("*", Stage::Auth, "the reply to *").await;
                return Err(failed(cause));
            }
        }
    }
    Err(failed(Cause::Sasl(ClientError::UnexpectedChallenge(choice.mechanism))))
}

/// SCRAM takes its time, as the server wants it; other deliveries go on meanwhile.
async fn respond(
    mut exchange: ClientExchange,
    challenge: Vec<u8>,
) -> Result<(ClientExchange, Result<Vec<u8>, ClientError>), Cause> {
    let answered = tokio::task::spawn_blocking(move || {
        let response = exchange.step(&challenge);
        (exchange, response)
    });
    answered.await.map_err(|stopped| Cause::Lost(std::io::Error::other(stopped)))
}
