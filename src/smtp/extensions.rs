//! What a server's EHLO reply says it can do.
//!
//! RFC 5321 §4.1.1.1 (EHLO), RFC 2920 (PIPELINING), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 3030
//! (CHUNKING, BINARYMIME), RFC 3461 (DSN), RFC 3207 (STARTTLS), RFC 8689 (REQUIRETLS), RFC 4954 (AUTH), RFC 9422 (LIMITS).

use super::Reply;

/// The extensions that a client can make use of. The default is what a server that only knows HELO offers: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Several commands in one write.
    pub pipelining: bool,
    /// SIZE is taken; the largest message taken, bytes, or 0 where the server does not say.
    pub size: Option<u64>,
    /// Content of any octets in lines.
    pub eight_bit_mime: bool,
    /// Addresses and header in UTF-8.
    pub smtputf8: bool,
    /// BDAT.
    pub chunking: bool,
    /// Content of any octets, by BDAT.
    pub binary_mime: bool,
    /// RET, ENVID, NOTIFY, ORCPT.
    pub dsn: bool,
    /// TLS on request.
    pub starttls: bool,
    /// The REQUIRETLS parameter.
    pub require_tls: bool,
    /// SASL mechanisms, upper-case, in the server's order.
    pub auth: Vec<String>,
    /// LIMITS: transactions in one session.
    pub mail_max: Option<usize>,
    /// LIMITS: recipients in one transaction.
    pub recipients_max: Option<usize>,
    /// LIMITS: different domains of the recipients in one transaction.
    pub recipient_domains_max: Option<usize>,
}

impl Extensions {
    /// Reads a positive EHLO reply. Unknown keywords and parameters that make no sense are passed over.
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut known = Self::default();
        // The first line holds the server's name.
        for line in reply.lines.iter().skip(1) {
            known.take(line);
        }
        known
    }

    fn take(&mut self, line: &str) {
        // `AUTH=LOGIN` is how some old servers spell `AUTH LOGIN`.
        let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = Some(words.next().and_then(|max| max.parse().ok()).unwrap_or(0)),
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary_mime = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "AUTH" => {
                for mechanism in words.map(str::to_ascii_uppercase) {
                    if !self.auth.contains(&mechanism) {
                        self.auth.push(mechanism);
                    }
                }
            }
            "LIMITS" => self.take_limits(line),
            _ => {}
        }
    }

    /// RFC 9422 §3: `LIMITS RCPTMAX=100 MAILMAX=10`; a limit is at least 1.
    fn take_limits(&mut self, line: &str) {
        for limit in line.split(' ').skip(1) {
            let Some((name, value)) = limit.split_once('=') else { continue };
            let value = value.parse().ok().filter(|value| *value > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => self.mail_max = value,
                "RCPTMAX" => self.recipients_max = value,
                "RCPTDOMAINMAX" => self.recipient_domains_max = value,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Extensions {
        Extensions::from_ehlo(&Reply::new(250, lines))
    }

    #[test]
    fn what_servers_offer() {
        let nothing = Extensions::default;
        for (lines, extensions) in [
            ("mail.test", nothing()),
            // The greeting line is no keyword, whatever the server calls itself.
            ("PIPELINING", nothing()),
            ("x\nPipelining\n8bitMIME", Extensions { pipelining: true, eight_bit_mime: true, ..nothing() }),
            ("x\nSIZE", Extensions { size: Some(0), ..nothing() }),
            ("x\nSIZE 0", Extensions { size: Some(0), ..nothing() }),
            ("x\nSIZE 35882577", Extensions { size: Some(35_882_577), ..nothing() }),
            ("x\nSIZE lots", Extensions { size: Some(0), ..nothing() }),
            ("x\nSTARTTLS \nDSN", Extensions { starttls: true, dsn: true, ..nothing() }),
            ("x\nSTARTTLSX\n\n ", nothing()),
            ("x\nSMTPUTF8\nREQUIRETLS", Extensions { smtputf8: true, require_tls: true, ..nothing() }),
            ("x\nCHUNKING\nBINARYMIME", Extensions { chunking: true, binary_mime: true, ..nothing() }),
            (
                "x\nAUTH PLAIN scram-sha-256\nAUTH=LOGIN PLAIN",
                Extensions {
                    auth: vec!["PLAIN".into(), "SCRAM-SHA-256".into(), "LOGIN".into()],
                    ..nothing()
                },
            ),
            (
                "x\nLIMITS RCPTMAX=20 mailmax=5 RCPTDOMAINMAX=1 OTHERMAX=7",
                Extensions {
                    recipients_max: Some(20),
                    mail_max: Some(5),
                    recipient_domains_max: Some(1),
                    ..nothing()
                },
            ),
            ("x\nLIMITS RCPTMAX=0 MAILMAX= RCPTDOMAINMAX=-1 x", nothing()),
        ] {
            assert_eq!(read(lines), extensions, "{lines:?}");
        }
    }
}
