//! A real DNS server on a port of its own, for tests: hickory-server answering from a small table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::net::runtime::Time;
use hickory_resolver::proto::op::{Metadata, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType, rdata};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::config;

/// What the server knows, one record a line: `name type data`. Types are A, AAAA, MX (`10 host`), CNAME, PTR and TXT (the
/// rest of the line; `|` between its strings); `SERVFAIL` and `SILENT` make the whole name answer that way. A name that
/// stands nowhere is NXDOMAIN.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    questions: Arc<AtomicUsize>,
    _server: Server<Table>,
}

impl DnsServer {
    pub(crate) async fn start(zone: &str) -> Self {
        let questions = Arc::new(AtomicUsize::new(0));
        let table = Table { names: parse(zone), questions: questions.clone() };
        let mut server = Server::new(table);
        let (udp, tcp, address) = free_port().await;
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 16);
        Self { address, questions, _server: server }
    }

    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    pub(crate) fn config(&self) -> config::Dns {
        config::Dns {
            resolvers: vec![self.address],
            timeout: Duration::from_secs(2),
            ..config::Dns::default()
        }
    }
}

/// A port that is free for UDP and for TCP: another test may hold one of the two.
pub(crate) async fn free_port() -> (tokio::net::UdpSocket, tokio::net::TcpListener, SocketAddr) {
    for _ in 0..100 {
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = tokio::net::TcpListener::bind(address).await {
            return (udp, tcp, address);
        }
    }
    panic!("no port of 127.0.0.1 is free for both UDP and TCP");
}

#[derive(Default)]
struct Entry {
    records: Vec<Record>,
    servfail: bool,
    silent: bool,
}

struct Table {
    names: BTreeMap<Name, Entry>,
    questions: Arc<AtomicUsize>,
}

fn name(text: &str) -> Name {
    Name::from_str(&format!("{}.", text.trim_end_matches('.'))).unwrap()
}

fn parse(zone: &str) -> BTreeMap<Name, Entry> {
    let mut names = BTreeMap::<Name, Entry>::new();
    for line in zone.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let owner = name(words[0]);
        let entry = names.entry(owner.clone()).or_default();
        let data = match words[1] {
            "A" => RData::A(words[2].parse().unwrap()),
            "AAAA" => RData::AAAA(words[2].parse().unwrap()),
            "CNAME" => RData::CNAME(rdata::CNAME(name(words[2]))),
            "MX" => RData::MX(rdata::MX::new(words[2].parse().unwrap(), name(words[3]))),
            "PTR" => RData::PTR(rdata::PTR(name(words[2]))),
            "TXT" => {
                let text = line.split_once("TXT").map_or("", |(_, text)| text.trim_start());
                RData::TXT(rdata::TXT::new(text.split('|').map(ToOwned::to_owned).collect()))
            }
            "EMPTY" => continue,
            "SERVFAIL" => {
                entry.servfail = true;
                continue;
            }
            "SILENT" => {
                entry.silent = true;
                continue;
            }
            other => panic!("unknown record type {other}"),
        };
        entry.records.push(Record::from_rdata(owner, 300, data));
    }
    names
}

#[async_trait::async_trait]
impl RequestHandler for Table {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let query = request.request_info().unwrap().query;
        let (asked, kind) = (Name::from(query.name()), query.query_type());
        let builder = MessageResponseBuilder::from_message_request(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let entry = self.names.get(&asked);
        if entry.is_some_and(|entry| entry.silent) {
            std::future::pending::<()>().await;
        }
        metadata.response_code = match entry {
            None => ResponseCode::NXDomain,
            Some(entry) if entry.servfail => ResponseCode::ServFail,
            Some(_) => ResponseCode::NoError,
        };
        // One link at a time, as an authoritative server that serves only this zone would.
        let answers = entry.iter().flat_map(|entry| &entry.records);
        let answers: Vec<&Record> =
            answers.filter(|r| r.record_type() == kind || r.record_type() == RecordType::CNAME).collect();
        out.send_response(builder.build(metadata, answers, [], [], [])).await.unwrap()
    }
}
