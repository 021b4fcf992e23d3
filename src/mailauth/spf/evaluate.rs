//! check_host() (RFC 7208 §4): one evaluation, with what it may still ask.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use super::macros::{MacroString, Place, Values};
use super::record::{Lengths, Mechanism, Qualifier, Record, is_spf};
use super::{Check, Question, SpfResult};
use crate::dns::{Answer, Resolver, Trouble};

/// Terms that cause DNS queries, of all records together (§4.6.4).
const TERMS_MAX: u32 = 10;
/// Lookups that find nothing (§4.6.4).
const VOID_LOOKUPS_MAX: u32 = 2;
/// MX or PTR names looked at of one term (§4.6.4).
const NAMES_MAX: usize = 10;
/// For everything (§4.6.4: at least 20 seconds).
const TIME_MAX: Duration = Duration::from_secs(20);
/// Longest explanation shown; it is a stranger's text.
const EXPLANATION_BYTES_MAX: usize = 500;
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

/// Why an evaluation ends early.
#[derive(Debug)]
struct Stop {
    result: SpfResult,
    problem: String,
}

impl Stop {
    fn permanent(problem: impl Into<String>) -> Self {
        Self { result: SpfResult::PermError, problem: problem.into() }
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self { result: SpfResult::TempError, problem: trouble.to_string() }
    }
}

/// What a record said.
struct Said {
    result: SpfResult,
    mechanism: Option<String>,
    /// Where to find the words for a failure: the exp= of the record that decided, and its domain.
    explanation: Option<(MacroString, String)>,
    problem: Option<String>,
}

impl Said {
    fn none(problem: String) -> Self {
        Self { result: SpfResult::None, mechanism: None, explanation: None, problem: Some(problem) }
    }
}

struct Evaluation<'a> {
    resolver: &'a Resolver,
    question: &'a Question,
    /// IPv4 also where IPv6 carries it (§5).
    ip: IpAddr,
    sender: &'a str,
    terms: u32,
    voids: u32,
    /// Validated names of the client, once they were looked up (§5.5).
    names: Option<Vec<String>>,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Evaluates `domain` for `sender` (`local-part@domain`).
pub(super) async fn evaluate(resolver: &Resolver, question: &Question, sender: &str, domain: &str) -> Check {
    let ip = question.ip.to_canonical();
    let mut evaluation = Evaluation { resolver, question, ip, sender, terms: 0, voids: 0, names: None };
    let said = tokio::time::timeout(TIME_MAX, evaluation.check_host(domain)).await;
    let said = said.unwrap_or_else(|_| {
        let problem = format!("no answer within {} s", TIME_MAX.as_secs());
        Err(Stop { result: SpfResult::TempError, problem })
    });
    let check = |result| Check {
        result,
        domain: domain.to_owned(),
        mechanism: None,
        explanation: None,
        problem: None,
    };
    match said {
        Ok(said) => {
            let explanation = match said.explanation {
                Some((spec, domain)) if said.result == SpfResult::Fail => {
                    evaluation.explain(&spec, &domain).await
                }
                _ => None,
            };
            Check { mechanism: said.mechanism, explanation, problem: said.problem, ..check(said.result) }
        }
        Err(stop) => Check { problem: Some(stop.problem), ..check(stop.result) },
    }
}

impl Evaluation<'_> {
    /// Boxed, for records include each other.
    fn check_host<'s>(&'s mut self, domain: &'s str) -> Boxed<'s, Result<Said, Stop>> {
        Box::pin(async move {
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            if !is_multi_label_name(domain) {
                return Ok(Said::none(format!("{domain:?} is no domain name")));
            }
            let Some(record) = self.record(domain).await? else {
                return Ok(Said::none(format!("{domain} has no SPF record")));
            };
            self.go_through(&record, domain).await
        })
    }

    /// The domain's only SPF record (§4.4, §4.5).
    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let texts = self.resolver.texts(domain).await?.into_records();
        let mut records = texts.iter().filter(|text| is_spf(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(Stop::permanent(format!("{domain} has more than one SPF record"))),
            (Some(text), None) => {
                let record = Record::parse(text);
                record.map(Some).map_err(|why| Stop::permanent(format!("the SPF record of {domain}: {why}")))
            }
        }
    }

    async fn go_through(&mut self, record: &Record, domain: &str) -> Result<Said, Stop> {
        for directive in &record.directives {
            if self.matches(&directive.mechanism, domain).await? {
                return Ok(Said {
                    result: directive.qualifier.into(),
                    mechanism: Some(directive.text.clone()),
                    explanation: record.explanation.clone().map(|spec| (spec, domain.to_owned())),
                    problem: None,
                });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Said {
                result: SpfResult::Neutral,
                mechanism: None,
                explanation: None,
                problem: None,
            });
        };
        self.count_term()?;
        let target = self.name(Some(redirect), domain).await?;
        let said = self.check_host(&target).await?;
        match said.result {
            // §6.1: where there is no record, the redirect is wrong.
            SpfResult::None => Err(Stop::permanent(format!("redirect={target}: there is no SPF record"))),
            _ => Ok(said),
        }
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match (mechanism, self.ip) {
            (Mechanism::All, _) => Ok(true),
            (Mechanism::Ip4(net), IpAddr::V4(ip)) => Ok(net.contains(&ip)),
            (Mechanism::Ip6(net), IpAddr::V6(ip)) => Ok(net.contains(&ip)),
            (Mechanism::Ip4(_) | Mechanism::Ip6(_), _) => Ok(false),
            (Mechanism::Include(spec), _) => self.includes(spec, domain).await,
            (Mechanism::A(spec, lengths), _) => {
                self.count_term()?;
                let name = self.name(spec.as_ref(), domain).await?;
                let addresses = self.addresses(&name).await?;
                self.count_void(addresses.is_empty())?;
                Ok(self.is_among(&addresses, *lengths))
            }
            (Mechanism::Mx(spec, lengths), _) => self.is_mx(spec.as_ref(), *lengths, domain).await,
            (Mechanism::Ptr(spec), _) => {
                self.count_term()?;
                let target = self.name(spec.as_ref(), domain).await?.to_ascii_lowercase();
                let names = self.validated_names().await;
                Ok(names.iter().any(|name| is_within(name, &target)))
            }
            (Mechanism::Exists(spec), _) => {
                self.count_term()?;
                let name = self.name(Some(spec), domain).await?;
                // §5.7: A records, whatever the client came by.
                let answer = self.resolver.ipv4(&name).await?;
                let found = matches!(answer, Answer::Records(_));
                self.count_void(!found)?;
                Ok(found)
            }
        }
    }

    /// §5.2.
    async fn includes(&mut self, spec: &MacroString, domain: &str) -> Result<bool, Stop> {
        self.count_term()?;
        let target = self.name(Some(spec), domain).await?;
        match self.check_host(&target).await?.result {
            SpfResult::Pass => Ok(true),
            SpfResult::None => Err(Stop::permanent(format!("include:{target}: there is no SPF record"))),
            _ => Ok(false),
        }
    }

    /// §5.4.
    async fn is_mx(
        &mut self,
        spec: Option<&MacroString>,
        lengths: Lengths,
        domain: &str,
    ) -> Result<bool, Stop> {
        self.count_term()?;
        let name = self.name(spec, domain).await?;
        let mut hosts = self.resolver.mx_records(&name).await?.into_records();
        hosts.sort_by_key(|(preference, _)| *preference);
        let mut any = false;
        for (index, (_, host)) in hosts.iter().enumerate() {
            if index >= NAMES_MAX {
                return Err(Stop::permanent(format!("mx: {name} has more than {NAMES_MAX} MX hosts")));
            }
            let addresses = self.addresses(host).await?;
            any |= !addresses.is_empty();
            if self.is_among(&addresses, lengths) {
                return Ok(true);
            }
        }
        self.count_void(!any)?;
        Ok(false)
    }

    fn count_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        let problem = || Stop::permanent(format!("more than {TERMS_MAX} terms that need DNS"));
        if self.terms > TERMS_MAX { Err(problem()) } else { Ok(()) }
    }

    fn count_void(&mut self, void: bool) -> Result<(), Stop> {
        self.voids += u32::from(void);
        let problem = || Stop::permanent(format!("more than {VOID_LOOKUPS_MAX} lookups that found nothing"));
        if self.voids > VOID_LOOKUPS_MAX { Err(problem()) } else { Ok(()) }
    }

    /// Addresses of the client's family; a name that cannot exist has none.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Trouble> {
        Ok(match self.ip {
            IpAddr::V4(_) => {
                self.resolver.ipv4(name).await?.into_records().into_iter().map(IpAddr::V4).collect()
            }
            IpAddr::V6(_) => {
                self.resolver.ipv6(name).await?.into_records().into_iter().map(IpAddr::V6).collect()
            }
        })
    }

    fn is_among(&self, addresses: &[IpAddr], lengths: Lengths) -> bool {
        let bits = if self.ip.is_ipv4() { lengths.v4 } else { lengths.v6 };
        let net = |ip: &IpAddr| ipnet::IpNet::new(*ip, bits).ok();
        addresses.iter().filter_map(net).any(|net| net.contains(&self.ip))
    }

    /// The name that a term speaks of.
    async fn name(&mut self, spec: Option<&MacroString>, domain: &str) -> Result<String, Stop> {
        let Some(spec) = spec else { return Ok(domain.to_owned()) };
        let validated = self.validated_name(spec, domain).await;
        Ok(spec.expand_name(&self.values(domain, &validated)))
    }

    fn values<'v>(&'v self, domain: &'v str, validated_name: &'v str) -> Values<'v> {
        Values {
            ip: self.ip,
            sender: self.sender,
            domain,
            helo: &self.question.helo,
            receiver: &self.question.receiver,
            validated_name,
            now: self.question.now.as_second(),
        }
    }

    /// `%{p}` (§7.3): the domain itself if it is validated, else a name below it, else any, else "unknown".
    async fn validated_name(&mut self, spec: &MacroString, domain: &str) -> String {
        const UNKNOWN: &str = "unknown";
        if !spec.needs_validated_name() {
            return UNKNOWN.to_owned();
        }
        let domain = domain.to_ascii_lowercase();
        let names = self.validated_names().await;
        let best = names.iter().find(|name| **name == domain);
        let best =
            best.or_else(|| names.iter().find(|name| is_within(name, &domain))).or_else(|| names.first());
        best.map_or_else(|| UNKNOWN.to_owned(), Clone::clone)
    }

    /// Names of the client that lead back to it (§5.5). What DNS cannot tell counts as not validated.
    async fn validated_names(&mut self) -> Vec<String> {
        if let Some(names) = &self.names {
            return names.clone();
        }
        let claimed = self.resolver.names_of(self.ip).await.map(Answer::into_records).unwrap_or_default();
        let mut names = Vec::new();
        for name in claimed.into_iter().take(NAMES_MAX) {
            if self.addresses(&name).await.is_ok_and(|addresses| addresses.contains(&self.ip)) {
                names.push(name);
            }
        }
        self.names = Some(names.clone());
        names
    }

    /// §6.2: anything wrong on the way, and there is no explanation.
    async fn explain(&mut self, spec: &MacroString, domain: &str) -> Option<String> {
        let name = self.name(Some(spec), domain).await.ok()?;
        let texts =
            tokio::time::timeout(TIME_MAX, self.resolver.texts(&name)).await.ok()?.ok()?.into_records();
        let [text] = texts.as_slice() else { return None };
        let text = MacroString::parse(std::str::from_utf8(text).ok()?, Place::Explanation).ok()?;
        let validated = self.validated_name(&text, domain).await;
        let mut words = text.expand(&self.values(domain, &validated));
        words.retain(|c| matches!(c, ' '..='~'));
        words.truncate(EXPLANATION_BYTES_MAX);
        Some(words)
    }
}

impl From<Qualifier> for SpfResult {
    fn from(qualifier: Qualifier) -> Self {
        match qualifier {
            Qualifier::Pass => Self::Pass,
            Qualifier::Fail => Self::Fail,
            Qualifier::SoftFail => Self::SoftFail,
            Qualifier::Neutral => Self::Neutral,
        }
    }
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// §4.3: labels of 1 to 63 octets, at least two of them.
fn is_multi_label_name(name: &str) -> bool {
    let good = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    name.len() <= NAME_BYTES_MAX && name.contains('.') && !name.starts_with('[') && name.split('.').all(good)
}
