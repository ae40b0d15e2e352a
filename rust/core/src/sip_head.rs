//! Made-up signalling, so that a capture of media opens as a decoded call.
//!
//! The relay never sees SIP, but Wireshark, sngrep and VoIPmonitor find RTP by the SDP of a call. The head of
//! a recording is therefore an INVITE with what is known of the caller and a 200 with what is known of the
//! callee; when an address or a payload type changes, a re-INVITE and its 200 follow at that place. Both say
//! `User-Agent: rtpproxy (synthetic)`. What is not known is left out, never guessed.
//!
//! ```
//! use rtpproxy_core::frame::{Framer, Macs};
//! use rtpproxy_core::recording::Leg;
//! use rtpproxy_core::sip_head::{self, HeadFacts, HeadLeg};
//!
//! let facts = HeadFacts {
//!     call_id: b"1@example.com",
//!     from_tag: b"a",
//!     to_tag: Some(b"b"),
//!     legs: [
//!         HeadLeg { addr: ([192, 0, 2, 10], 40000).into(), rtcp: None, payload_types: vec![0, 101] },
//!         HeadLeg { addr: ([192, 0, 2, 20], 40002).into(), rtcp: None, payload_types: vec![0] },
//!     ],
//!     codec_map: &[(101, "telephone-event/8000".to_owned())],
//!     cseq: 1,
//! };
//! let [caller, callee] = facts.signalling();
//! let mut frame = Vec::new();
//! Framer::new(caller, callee, Macs::Leg(Leg::Caller)).write(0, &sip_head::invite(&facts), &mut frame);
//! frame.clear();
//! Framer::new(callee, caller, Macs::Leg(Leg::Callee)).write(1, &sip_head::ok(&facts), &mut frame);
//! ```

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The UDP port that both ends of a synthetic message use, so that every tool takes it for SIP.
pub const SIP_PORT: u16 = 5060;

/// What a party's SDP says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadLeg {
    /// Where the party sends RTP from.
    pub addr: SocketAddr,
    /// Where it sends RTCP from, if known. Only written if it is not the next port of `addr`.
    pub rtcp: Option<SocketAddr>,
    /// The payload types it may send, 0 to 127, in order of preference. If empty, those of the other leg
    /// stand for them; if both are, the SDP describes no media.
    pub payload_types: Vec<u8>,
}

/// What the messages of one offer and answer are made of.
#[derive(Clone, Debug)]
pub struct HeadFacts<'a> {
    /// The call-id. Bytes that a header cannot carry are written as `%XX`, here and in the tags.
    pub call_id: &'a [u8],
    /// The caller's tag. What follows a `;` is a media number and not written.
    pub from_tag: &'a [u8],
    /// The callee's tag; without one, the 200 says `synthetic`.
    pub to_tag: Option<&'a [u8]>,
    /// The caller, then the callee.
    pub legs: [HeadLeg; 2],
    /// What the operator calls payload types, such as `(111, "opus/48000/2")`. Goes before the static types of
    /// [RFC 3551 section 6](https://www.rfc-editor.org/rfc/rfc3551#section-6); a type in neither gets no name.
    pub codec_map: &'a [(u8, String)],
    /// 1 for the head; higher by one for each later change, which makes the request a re-INVITE.
    pub cseq: u32,
}

impl HeadFacts<'_> {
    /// Between which addresses the messages travel: the caller's, then the callee's.
    pub fn signalling(&self) -> [SocketAddr; 2] {
        [0, 1].map(|leg: usize| SocketAddr::new(self.legs[leg].addr.ip(), SIP_PORT))
    }
}

/// The request that offers what the caller sends.
pub fn invite(facts: &HeadFacts<'_>) -> Vec<u8> {
    let callee = host(facts.legs[1].addr.ip());
    let start = format!("INVITE sip:callee@{callee}:{SIP_PORT} SIP/2.0\r\nMax-Forwards: 70");
    let to_tag = (facts.cseq > 1).then(|| tag(facts.to_tag));
    message(facts, &start, to_tag.as_deref(), CALLER)
}

/// The answer with what the callee sends.
pub fn ok(facts: &HeadFacts<'_>) -> Vec<u8> {
    message(facts, "SIP/2.0 200 OK", Some(&tag(facts.to_tag)), CALLEE)
}

fn message(facts: &HeadFacts<'_>, start: &str, to_tag: Option<&str>, sender: usize) -> Vec<u8> {
    let hosts = [0, 1].map(|leg: usize| host(facts.legs[leg].addr.ip()));
    let from_tag = tag(Some(facts.from_tag));
    let to_param = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    let body = sdp(facts, sender);
    let lines = [
        start.to_owned(),
        format!("Via: SIP/2.0/UDP {}:{SIP_PORT};branch=z9hG4bK-{from_tag}-{}", hosts[CALLER], facts.cseq),
        format!("From: <sip:caller@{}>;tag={from_tag}", hosts[CALLER]),
        format!("To: <sip:callee@{}>{to_param}", hosts[CALLEE]),
        format!("Call-ID: {}", escaped(facts.call_id, |_| true)),
        format!("CSeq: {} INVITE", facts.cseq),
        format!("Contact: <sip:{}@{}:{SIP_PORT}>", NAMES[sender], hosts[sender]),
        format!("User-Agent: {AGENT}"),
        "Content-Type: application/sdp".to_owned(),
        format!("Content-Length: {}", body.len()),
        String::new(),
        body,
    ];
    lines.join("\r\n").into_bytes()
}

fn sdp(facts: &HeadFacts<'_>, sender: usize) -> String {
    let leg = &facts.legs[sender];
    let connection = connection(leg.addr.ip());
    let mut lines = vec![
        "v=0".to_owned(),
        format!("o=- 1 {} {connection}", facts.cseq),
        format!("s={AGENT}"),
        format!("c={connection}"),
        "t=0 0".to_owned(),
    ];
    let types = payload_types(facts, sender);
    if !types.is_empty() {
        let list: String = types.iter().map(|payload_type| format!(" {payload_type}")).collect();
        lines.push(format!("m=audio {} RTP/AVP{list}", leg.addr.port()));
        lines.extend(types.iter().filter_map(|payload_type| rtpmap(*payload_type, facts.codec_map)));
        lines.extend(rtcp_line(leg));
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// Each once, in order; the other leg's if this one's are not known.
fn payload_types(facts: &HeadFacts<'_>, sender: usize) -> Vec<u8> {
    let own = &facts.legs[sender].payload_types;
    let listed = if own.is_empty() { &facts.legs[1 - sender].payload_types } else { own };
    let mut types = Vec::with_capacity(listed.len());
    for payload_type in listed.iter().copied().filter(|payload_type| *payload_type < 128) {
        if !types.contains(&payload_type) {
            types.push(payload_type);
        }
    }
    types
}

fn rtpmap(payload_type: u8, codec_map: &[(u8, String)]) -> Option<String> {
    let mapped = codec_map.iter().find(|(number, _)| *number == payload_type);
    let encoding = match mapped {
        Some((_, encoding)) => escaped(encoding.as_bytes(), |_| true),
        None => static_encoding(payload_type)?.to_owned(),
    };
    Some(format!("a=rtpmap:{payload_type} {encoding}"))
}

/// The attribute of [RFC 3605](https://www.rfc-editor.org/rfc/rfc3605), where RTCP is not at the next port.
fn rtcp_line(leg: &HeadLeg) -> Option<String> {
    let rtcp = leg.rtcp?;
    if rtcp.ip() != leg.addr.ip() {
        Some(format!("a=rtcp:{} {}", rtcp.port(), connection(rtcp.ip())))
    } else if leg.addr.port().checked_add(1) != Some(rtcp.port()) {
        Some(format!("a=rtcp:{}", rtcp.port()))
    } else {
        None
    }
}

fn connection(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("IN IP4 {ip}"),
        IpAddr::V6(ip) => format!("IN IP6 {ip}"),
    }
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn tag(tag: Option<&[u8]>) -> String {
    let tag = tag.and_then(|tag| tag.split(|byte| *byte == b';').next()).unwrap_or_default();
    if tag.is_empty() { "synthetic".to_owned() } else { escaped(tag, |byte| !b",\"<>?\\".contains(&byte)) }
}

/// `bytes` with `%XX` for what is not visible ASCII or not `allowed`, so that no value can end its line.
fn escaped(bytes: &[u8], allowed: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && allowed(byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes every write");
        }
    }
    text
}

fn static_encoding(payload_type: u8) -> Option<&'static str> {
    Some(match payload_type {
        0 => "PCMU/8000",
        3 => "GSM/8000",
        4 => "G723/8000",
        5 => "DVI4/8000",
        6 => "DVI4/16000",
        7 => "LPC/8000",
        8 => "PCMA/8000",
        9 => "G722/8000",
        10 => "L16/44100/2",
        11 => "L16/44100",
        12 => "QCELP/8000",
        13 => "CN/8000",
        14 => "MPA/90000",
        15 => "G728/8000",
        16 => "DVI4/11025",
        17 => "DVI4/22050",
        18 => "G729/8000",
        25 => "CelB/90000",
        26 => "JPEG/90000",
        28 => "nv/90000",
        31 => "H261/90000",
        32 => "MPV/90000",
        33 => "MP2T/90000",
        34 => "H263/90000",
        _ => return None,
    })
}

const CALLER: usize = 0;
const CALLEE: usize = 1;
const NAMES: [&str; 2] = ["caller", "callee"];
const AGENT: &str = "rtpproxy (synthetic)";

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(addr: &str, payload_types: &[u8]) -> HeadLeg {
        HeadLeg { addr: addr.parse().unwrap(), rtcp: None, payload_types: payload_types.to_vec() }
    }

    fn facts() -> HeadFacts<'static> {
        HeadFacts {
            call_id: b"1@example.com",
            from_tag: b"from",
            to_tag: Some(b"to"),
            legs: [leg("192.0.2.10:40000", &[0, 8, 101]), leg("192.0.2.20:40002", &[0])],
            codec_map: &[],
            cseq: 1,
        }
    }

    fn text(message: Vec<u8>) -> String {
        String::from_utf8(message).unwrap()
    }

    fn body(message: &str) -> &str {
        message.split_once("\r\n\r\n").unwrap().1
    }

    #[test]
    fn the_invite_is_byte_exact() {
        let expected = [
            "INVITE sip:callee@192.0.2.20:5060 SIP/2.0",
            "Max-Forwards: 70",
            "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-from-1",
            "From: <sip:caller@192.0.2.10>;tag=from",
            "To: <sip:callee@192.0.2.20>",
            "Call-ID: 1@example.com",
            "CSeq: 1 INVITE",
            "Contact: <sip:caller@192.0.2.10:5060>",
            "User-Agent: rtpproxy (synthetic)",
            "Content-Type: application/sdp",
            "Content-Length: 159",
            "",
            "v=0",
            "o=- 1 1 IN IP4 192.0.2.10",
            "s=rtpproxy (synthetic)",
            "c=IN IP4 192.0.2.10",
            "t=0 0",
            "m=audio 40000 RTP/AVP 0 8 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            "",
        ];
        assert_eq!(text(invite(&facts())), expected.join("\r\n"));
    }

    #[test]
    fn the_ok_answers_it() {
        let expected = [
            "SIP/2.0 200 OK",
            "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-from-1",
            "From: <sip:caller@192.0.2.10>;tag=from",
            "To: <sip:callee@192.0.2.20>;tag=to",
            "Call-ID: 1@example.com",
            "CSeq: 1 INVITE",
            "Contact: <sip:callee@192.0.2.20:5060>",
            "User-Agent: rtpproxy (synthetic)",
            "Content-Type: application/sdp",
            "Content-Length: 131",
            "",
            "v=0",
            "o=- 1 1 IN IP4 192.0.2.20",
            "s=rtpproxy (synthetic)",
            "c=IN IP4 192.0.2.20",
            "t=0 0",
            "m=audio 40002 RTP/AVP 0",
            "a=rtpmap:0 PCMU/8000",
            "",
        ];
        assert_eq!(text(ok(&facts())), expected.join("\r\n"));
    }

    #[test]
    fn a_later_request_is_inside_the_dialog() {
        let message = text(invite(&HeadFacts { cseq: 2, ..facts() }));
        assert!(message.contains("To: <sip:callee@192.0.2.20>;tag=to\r\n"), "{message}");
        assert!(message.contains("CSeq: 2 INVITE\r\n"));
        assert!(message.contains(";branch=z9hG4bK-from-2\r\n"));
        assert!(message.contains("o=- 1 2 IN IP4"));
    }

    #[test]
    fn ipv6_hosts_stand_in_brackets_only_in_uris() {
        let legs = [leg("[2001:db8::a]:40000", &[8]), leg("[2001:db8::b]:40002", &[8])];
        let message = text(invite(&HeadFacts { legs, ..facts() }));
        assert!(message.starts_with("INVITE sip:callee@[2001:db8::b]:5060 SIP/2.0\r\n"), "{message}");
        assert!(message.contains("Via: SIP/2.0/UDP [2001:db8::a]:5060;"));
        assert!(message.contains("c=IN IP6 2001:db8::a\r\n"));
    }

    #[test]
    fn rtcp_is_named_where_it_is_not_the_next_port() {
        let rtcp_lines = |rtcp: Option<&str>| {
            let mut facts = facts();
            facts.legs[0].rtcp = rtcp.map(|addr| addr.parse().unwrap());
            let message = text(invite(&facts));
            body(&message)
                .lines()
                .filter(|line| line.starts_with("a=rtcp"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(rtcp_lines(None).is_empty());
        assert!(rtcp_lines(Some("192.0.2.10:40001")).is_empty());
        assert_eq!(rtcp_lines(Some("192.0.2.10:50000")), ["a=rtcp:50000"]);
        assert_eq!(rtcp_lines(Some("192.0.2.99:40001")), ["a=rtcp:40001 IN IP4 192.0.2.99"]);
        assert_eq!(rtcp_lines(Some("[2001:db8::a]:40001")), ["a=rtcp:40001 IN IP6 2001:db8::a"]);
    }

    #[test]
    fn dynamic_types_are_named_by_the_operator_only() {
        let map = [(111, "opus/48000/2".to_owned()), (18, "G729/8000/1".to_owned())];
        let legs = [leg("192.0.2.10:40000", &[111, 111, 97, 18, 200]), leg("192.0.2.20:40002", &[])];
        let facts = HeadFacts { legs, codec_map: &map, ..facts() };
        for (message, port) in [(text(invite(&facts)), 40000), (text(ok(&facts)), 40002)] {
            let media = body(&message).split_once("t=0 0\r\n").unwrap().1;
            assert_eq!(
                media,
                format!(
                    "m=audio {port} RTP/AVP 111 97 18\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:18 G729/8000/1\r\n"
                )
            );
        }
    }

    #[test]
    fn without_any_payload_type_no_media_is_described() {
        let legs = [leg("192.0.2.10:40000", &[]), leg("192.0.2.20:40002", &[])];
        let message = text(invite(&HeadFacts { legs, ..facts() }));
        assert!(body(&message).ends_with("t=0 0\r\n"));
    }

    #[test]
    fn no_value_can_break_its_line() {
        let map = [(101, "x\r\na=evil".to_owned())];
        let facts = HeadFacts {
            call_id: b"a\r\nEvil: 1\xff\0@b",
            from_tag: b"f\n>,x;1",
            to_tag: Some(b";2"),
            codec_map: &map,
            ..facts()
        };
        for message in [text(invite(&facts)), text(ok(&facts))] {
            assert!(message.contains("Call-ID: a%0D%0AEvil:%201%FF%00@b\r\n"), "{message}");
            assert!(message.contains(";tag=f%0A%3E%2Cx\r\n"));
            let named = message.lines().filter(|line| line.starts_with("a=rtpmap:101")).count();
            assert_eq!(named, usize::from(message.starts_with("INVITE")));
            assert!(!message.contains("\na=evil") && !message.contains("\nEvil"));
            let (head, body) = message.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
        }
        assert!(text(ok(&facts)).contains("To: <sip:callee@192.0.2.20>;tag=synthetic\r\n"));
    }

    #[test]
    fn signalling_uses_the_port_of_sip_at_both_ends() {
        assert_eq!(
            facts().signalling(),
            ["192.0.2.10:5060", "192.0.2.20:5060"].map(|addr| addr.parse::<SocketAddr>().unwrap())
        );
    }
}
