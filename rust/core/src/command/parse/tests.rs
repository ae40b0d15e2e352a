//! One row per line of the protocol's tables.

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::command::{LocalSpec, MediaAddr, NotifyArgs, Offer, Setting, SubCommand};

#[test]
fn commands() {
    let rows: [(&str, Command); 43] = [
        ("V", Command::Version),
        (" v\r\n", Command::Version),
        ("VF 20040107", Command::Feature(word("20040107"))),
        ("vf abc", Command::Feature(word("abc"))),
        ("U c 192.0.2.1 4000 f", Command::Update(at("f", None))),
        ("u c 192.0.2.1 4000 f t", Command::Update(at("f", Some("t")))),
        ("U c 192.0.2.1 4000 f s g", Command::Update(notify(at("f", None), "s", b"g"))),
        ("U c 192.0.2.1 4000 f t s g", Command::Update(notify(at("f", Some("t")), "s", b"g"))),
        ("U c 192.0.2.1 4000 f s r%201+%c3%00", Command::Update(notify(at("f", None), "s", b"r 1 \xc3\0"))),
        ("L c 192.0.2.1 4000 f", Command::Lookup(at("f", None))),
        ("l c 192.0.2.1 4000 f;1 t;1", Command::Lookup(at("f;1", Some("t;1")))),
        ("D c f", Command::Delete { party: from("f", None), weak: false }),
        ("d c f t", Command::Delete { party: from("f", Some("t")), weak: false }),
        ("Dw c f", Command::Delete { party: from("f", None), weak: true }),
        ("DWw c f", Command::Delete { party: from("f", None), weak: true }),
        ("P c p 0,8 f", play(1)),
        ("P0 c p 0,8 f", play(0)),
        ("p-1 c p 0,8 f", play(-1)),
        ("P+007 c p 0,8 f", play(7)),
        ("S c f", Command::StopPlay(from("f", None))),
        ("s c f t", Command::StopPlay(from("f", Some("t")))),
        ("R c f t", Command::Record { party: from("f", Some("t")), single_file: false }),
        ("rS c f", Command::Record { party: from("f", None), single_file: true }),
        ("C c n f", copy("n", false, false)),
        ("cs c n f", copy("n", true, false)),
        ("CPS c udp:192.0.2.1:9 f", copy("udp:192.0.2.1:9", true, true)),
        ("N c f t", Command::StopRecord { party: from("f", Some("t")), both: false }),
        ("nA c f", Command::StopRecord { party: from("f", None), both: true }),
        ("Q c f", query("", None, &[])),
        ("Q c f t", query("", Some("t"), &[])),
        ("qV c f t ttl rtpa_nsent", query("V", Some("t"), &["ttl", "rtpa_nsent"])),
        ("Qx c f t", query("x", Some("t"), &[])),
        ("X", Command::DeleteAll),
        ("x", Command::DeleteAll),
        ("I", Command::Info { load: false }),
        ("ib", Command::Info { load: false }),
        ("IBlL", Command::Info { load: true }),
        ("G", Command::Counters { verbose: false, names: vec![] }),
        ("g a b", Command::Counters { verbose: false, names: vec![word("a"), word("b")] }),
        ("?recordings", Command::Recordings { after: 0 }),
        ("?recordings 17", Command::Recordings { after: 17 }),
        ("GvV a", Command::Counters { verbose: true, names: vec![word("a")] }),
        (
            "D &&x &&&",
            Command::Delete { party: Party { call_id: "&&x".into(), ..from("&&&", None) }, weak: false },
        ),
    ];
    for (text, command) in rows {
        assert_eq!(parse(text.as_bytes(), &mut AnyRules), Ok(command), "{text}");
    }
}

#[test]
fn refusals() {
    let rows = [
        // E0 to E5: the shape, in the order of the checks.
        ("Z", 0),
        ("T x && D", 0),
        ("\u{e9}", 0),
        ("?", 0),
        ("?recording", 0),
        ("?recordings1", 0),
        ("V x", 1),
        ("VFx", 1),
        ("VG x", 1),
        ("VF", 1),
        ("VF a b", 1),
        ("U c a p", 1),
        ("U c a p f t s g x", 1),
        ("Uk c a", 1),
        ("L c a p", 1),
        ("L c a p f t x", 1),
        ("D c", 1),
        ("D c f t x", 1),
        ("P c p 0", 1),
        ("P c p 0 f t x", 1),
        ("S c", 1),
        ("S c f t x", 1),
        ("R c", 1),
        ("R c f t x", 1),
        ("C c n", 1),
        ("C c n f t x", 1),
        ("N c", 1),
        ("N c f t x", 1),
        ("Q c", 1),
        ("Q c f t 4 5 6 7 8 9 10 11 12 13 14 15", 1),
        ("X x", 1),
        ("?recordings 1 2", 1),
        ("?recordings x", 1),
        ("?recordings -1", 1),
        ("?recordings 18446744073709551616", 1),
        ("I x", 1),
        ("Vx x", 1),
        ("Vx", 2),
        ("VG", 2),
        ("VFx 20040107", 2),
        ("Sx c f", 2),
        ("Xx && D", 2),
        ("V && D", 3),
        ("VF 1 && D", 3),
        ("Dx c f && D", 3),
        ("Px c p 0 f && D", 3),
        ("S c f && D", 3),
        ("Rx c f && D", 3),
        ("Cx c n f && D", 3),
        ("Nx c f && D", 3),
        ("X && D", 3),
        ("?recordings && D", 3),
        ("Ix && D", 3),
        ("Gx && D", 3),
        ("", 5),
        ("V && ", 5),
        ("&& V", 5),
        ("Z\0", 5),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24", 5),
        // E6 to E19: the modifiers of a single command.
        ("Naa c f", 6),
        ("NaX c f", 6),
        ("Rp c f", 6),
        ("Rsp c f", 6),
        ("Nx c f", 7),
        ("Nxa c f", 7),
        ("Rx c f", 7),
        ("Rxp c f", 7),
        ("Cx c n f", 7),
        ("Cspx c n f", 7),
        ("Dx c f", 8),
        ("Dwx c f", 8),
        ("Gx", 9),
        ("Gvx a", 9),
        ("Uk c a 5 f s %", 10),
        ("U c a 5 f s %2", 10),
        ("U c a 5 f s %zz", 10),
        ("U c a 5 f t s a%+1", 10),
        ("Px c p 0 f", 17),
        ("P3s c p 0 f", 17),
        ("P- c p 0 f", 17),
        ("P2147483648 c p 0 f", 17),
        ("Ix", 18),
        ("Iblx", 18),
        // The order within U and L.
        ("Uk c 192.0.2.1x 5 f && S x", 35),
        ("U c badaddress 5 f && S x", 37),
        ("Qx c f t && S z", 3),
        ("U c 192.0.2.1 5 f s g && S x", 3),
    ];
    for (text, code) in rows {
        assert_eq!(parse(text.as_bytes(), &mut AnyRules), Err(ErrorCode(code)), "{text}");
    }
}

#[test]
fn modifiers_of_update_and_lookup() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let local = |text: &str| Modifier::Local(LocalSpec::Addr(ip(text)));
    let label = |text: &str| Modifier::Local(LocalSpec::Label(text.into()));
    let codecs = |text: &str| Modifier::Codecs(text.into());
    let rows = [
        ("", vec![]),
        ("a", vec![Modifier::Asymmetric]),
        ("AsS", vec![Modifier::Asymmetric, Modifier::Symmetric, Modifier::Symmetric]),
        ("eI", vec![Modifier::External, Modifier::Internal]),
        ("6", vec![Modifier::Ipv6]),
        ("wN", vec![Modifier::Weak, Modifier::NewPort]),
        ("z20", vec![Modifier::Repacketize(20)]),
        ("Z+0001s", vec![Modifier::Repacketize(1), Modifier::Symmetric]),
        ("z999z1", vec![Modifier::Repacketize(999), Modifier::Repacketize(1)]),
        ("c0,8,101", vec![codecs("0,8,101")]),
        ("c,w", vec![codecs(","), Modifier::Weak]),
        ("c0,86", vec![codecs("0,86")]),
        ("l192.0.2.1n", vec![local("192.0.2.1"), Modifier::NewPort]),
        ("l127.1", vec![local("127.0.0.1")]),
        ("L[2001:db8::1]6", vec![local("2001:db8::1"), Modifier::Ipv6]),
        ("l{lan}l{}", vec![label("lan"), label("")]),
        ("r192.0.2.1c0", vec![Modifier::RouteTo(ip("192.0.2.1")), codecs("0")]),
        ("R[::1]w", vec![Modifier::RouteTo(ip("::1")), Modifier::Weak]),
    ];
    for (text, list) in rows {
        for verb in ["U", "L"] {
            let command = parse(format!("{verb}{text} c 0 0 f").as_bytes(), &mut AnyRules).unwrap();
            let (Command::Update(offer) | Command::Lookup(offer)) = command else { panic!("{text}") };
            assert_eq!(offer.modifiers.0, list, "{text}");
        }
    }
}

#[test]
fn refused_modifiers_of_update_and_lookup() {
    let rows = [
        ("z", 13),
        ("z0", 13),
        ("z1000", 13),
        ("z99999999999", 13),
        ("z-5", 13),
        ("z+", 13),
        ("zz20", 13),
        ("c", 14),
        ("cw", 14),
        ("c0wc8", 14),
        ("l", 15),
        ("l::1", 15),
        ("lfoo", 15),
        ("l[]", 15),
        ("l[::1", 15),
        ("l[fe80::1%lo]", 15),
        ("l[::ffff:1.2.3.4]", 15),
        ("l{lan", 15),
        ("r", 16),
        ("rfoo", 16),
        ("r[::1", 16),
        ("r{lan}", 16),
        ("l1.2.3.4.5", 31),
        ("l256.1.1.1k", 31),
        ("l[1:2]", 31),
        ("l.", 31),
        ("r1.2.3.256", 32),
        ("r[:::]", 32),
        ("k", 35),
        ("wk", 35),
        ("1", 35),
        ("4", 35),
        ("t46", 35),
        ("c0,8x", 35),
        ("\u{e9}", 35),
        ("kz0", 35),
        ("z0k", 13),
    ];
    let never_used = ["o", "f", "p", "d", "g", "h", "j", "k", "m", "q", "u", "v", "x", "y", "b", "t"];
    for (text, code) in rows.into_iter().chain(never_used.map(|letter| (letter, 35))) {
        for verb in ["U", "L"] {
            let text = format!("{verb}{text} c badaddress 0 f");
            assert_eq!(parse(text.as_bytes(), &mut AnyRules), Err(ErrorCode(code)), "{text}");
        }
    }
}

#[test]
fn media_addresses() {
    let at = |text: &str| Some(MediaAddr::At(text.parse().unwrap()));
    let rows = [
        ("", "192.0.2.1 4000", at("192.0.2.1:4000")),
        ("", "192.0.2.1 0", at("192.0.2.1:0")),
        ("", "192.0.2.1 65536", at("192.0.2.1:0")),
        ("", "192.0.2.1 +04000", at("192.0.2.1:4000")),
        ("", "192.0.2.1 -1", None),
        ("", "192.0.2.1 abc", None),
        ("", "192.0.2.1 4000x", None),
        ("", "127.0.1 5", at("127.0.0.1:5")),
        ("", "0x7f.0.0.1 5", at("127.0.0.1:5")),
        ("", "127.1 5", Some(MediaAddr::Unknown)),
        ("", "0 abc", Some(MediaAddr::Unknown)),
        ("", "sixteen.letters. -1", Some(MediaAddr::Unknown)),
        ("", "fifteen.letters 5", None),
        ("", "192.0.2.1x 5", None),
        ("", "256.1.1.1 5", None),
        ("", "2001:db8::1 5", None),
        ("", "::1 5", Some(MediaAddr::Unknown)),
        ("", "0.0.0.0 4000", Some(MediaAddr::Hold)),
        ("", "0.0.0.0 abc", None),
        ("6", "2001:db8::1 4000", at("[2001:db8::1]:4000")),
        ("6", ":: 4000", Some(MediaAddr::Hold)),
        ("6", "0 abc", Some(MediaAddr::Unknown)),
        ("6", "00 1", None),
        ("6", "192.0.2.1 5", None),
        ("6", "[::1] 5", None),
        ("6", "a-word-with-more-than-forty-five-letters-in-it x", Some(MediaAddr::Unknown)),
    ];
    for (modifiers, text, media) in rows {
        let parsed = parse(format!("U{modifiers} c {text} f").as_bytes(), &mut AnyRules);
        let parsed = parsed.map(|command| match command {
            Command::Update(offer) => offer.media,
            other => panic!("{other:?}"),
        });
        assert_eq!(parsed, media.ok_or(ErrorCode::MEDIA_ADDRESS), "{modifiers} {text}");
    }
}

#[test]
fn sub_commands() {
    let set = |reverse, setting| SubCommand::Set { reverse, setting };
    let module = |id, instance, args: &[&str]| SubCommand::Module { id, instance, args: words(args) };
    let rows = [
        ("D", SubCommand::Delete { weak: false }),
        ("dW", SubCommand::Delete { weak: true }),
        ("S ttl=5", set(false, Setting::Ttl(5))),
        ("sR ttl=+007", set(true, Setting::Ttl(7))),
        ("Sx tos=184", set(false, Setting::Tos(184))),
        ("S tos=99999", set(false, Setting::Tos(99999))),
        ("M3:1 tag 101 h", module(3, 1, &["tag", "101", "h"])),
        ("m5:2", module(5, 2, &[])),
    ];
    for (text, sub) in rows {
        for main in ["U c 0 0 f", "L c 0 0 f t", "Q c f"] {
            let text = format!("{main} && {text}");
            let command = parse(text.as_bytes(), &mut AnyRules);
            let subs = match command {
                Ok(Command::Update(offer) | Command::Lookup(offer)) => offer.subs,
                Ok(Command::Query { subs, .. }) => subs,
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(subs, std::slice::from_ref(&sub), "{text}");
        }
    }
}

#[test]
fn sub_commands_of_an_update_with_both_tags() {
    let lookup = SubCommand::Lookup {
        modifiers: Modifiers(vec![Modifier::Ipv6, Modifier::Weak]),
        media: MediaAddr::At("[2001:db8::1]:5".parse().unwrap()),
    };
    let fork =
        SubCommand::Fork(Party { call_id: "src".into(), from_tag: "a".into(), to_tag: Some("b".into()) });
    for main in ["U c 0 0 f t", "U c 0 0 f t s g"] {
        let text = format!("{main} && l6w 2001:db8::1 5 && c src a b");
        match parse(text.as_bytes(), &mut AnyRules) {
            Ok(Command::Update(offer)) => assert_eq!(offer.subs, [lookup.clone(), fork.clone()]),
            other => panic!("{other:?}"),
        }
    }
    for main in ["U c 0 0 f", "U c 0 0 f s g", "L c 0 0 f t", "Q c f t"] {
        for sub in ["L 0 0", "C src a b"] {
            let text = format!("{main} && {sub}");
            assert_eq!(parse(text.as_bytes(), &mut AnyRules), Err(ErrorCode::SUB_COMMAND), "{text}");
        }
    }
}

#[test]
fn refused_sub_commands() {
    let rows = [
        "D x",
        "Dx",
        "S",
        "Sx",
        "Srr ttl=5",
        "S ttl=0",
        "S ttl=-1",
        "S ttl=",
        "S ttl=5x",
        "S TTL=5",
        "S t60",
        "S ttl=5 tos=5",
        "S tos=0",
        "S tos=4294967296",
        "L 0",
        "L 0 0 0",
        "Lk 0 0",
        "Lz0 0 0",
        "L badaddress 5",
        "L 192.0.2.1 x",
        "C src a",
        "C src a b c",
        "Cp src a b",
        "M",
        "M3",
        "M3:",
        "M:1",
        "M0:1",
        "M6:1",
        "M3:0",
        "M-3:1",
        "M3:1:1",
        "M3:x",
        "U c 0 0 f",
        "X",
        "Z",
        "V",
    ];
    for row in rows {
        let text = format!("U c 0 0 f t && D && {row}");
        assert_eq!(parse(text.as_bytes(), &mut AnyRules), Err(ErrorCode::SUB_COMMAND), "{text}");
    }
}

#[test]
fn rules_are_asked_where_the_protocol_checks_them() {
    let rows = [
        ("Uek c a 0 f s %", 10),
        ("Uek c badaddress 0 f", 11),
        ("Uke c badaddress 0 f", 35),
        ("Uwz0e c badaddress 0 f", 13),
        ("Uwez0 c badaddress 0 f", 11),
        ("U c badaddress 0 f", 36),
        ("U6k c badaddress 0 f", 35),
        ("U6 c badaddress 0 f", 37),
        ("U6 c ::1 1 f && S", 3),
        ("U6 c ::1 1 f t && L6e ::1 1", 3),
        ("U6 c ::1 1 f t && L 0 1", 3),
        ("U6 c ::1 1 f && M3:1 t", 3),
    ];
    for (text, code) in rows {
        assert_eq!(parse(text.as_bytes(), &mut Strict), Err(ErrorCode(code)), "{text}");
    }
    assert!(parse(b"U6 c ::1 1 f t && L6 ::1 1", &mut Strict).is_ok());
}

/// Neither directions nor IPv4.
struct Strict;

impl Rules for Strict {
    fn modifier(&mut self, _earlier: &[Modifier], modifier: &Modifier) -> Result<(), ErrorCode> {
        if *modifier == Modifier::External { Err(ErrorCode::EXTERNAL) } else { Ok(()) }
    }

    fn family(&mut self, modifiers: &Modifiers) -> Result<(), ErrorCode> {
        if modifiers.has(&Modifier::Ipv6) { Ok(()) } else { Err(ErrorCode::NO_LOCAL_ADDRESS) }
    }
}

fn word(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn words(texts: &[&str]) -> Vec<Box<[u8]>> {
    texts.iter().map(|text| word(text)).collect()
}

fn from(from_tag: &str, to_tag: Option<&str>) -> Party {
    Party { call_id: "c".into(), from_tag: from_tag.into(), to_tag: to_tag.map(Into::into) }
}

fn at(from_tag: &str, to_tag: Option<&str>) -> Offer {
    Offer {
        party: from(from_tag, to_tag),
        modifiers: Modifiers::default(),
        media: MediaAddr::At(SocketAddr::from(([192, 0, 2, 1], 4000))),
        notify: None,
        subs: vec![],
    }
}

fn notify(offer: Offer, socket: &str, tag: &[u8]) -> Offer {
    Offer { notify: Some(NotifyArgs { socket: word(socket), tag: tag.into() }), ..offer }
}

fn play(count: i32) -> Command {
    Command::Play { party: from("f", None), count, prompt: word("p"), codecs: word("0,8") }
}

fn copy(target: &str, single_file: bool, report_port: bool) -> Command {
    Command::Copy { party: from("f", None), target: word(target), single_file, report_port }
}

fn query(modifiers: &str, to_tag: Option<&str>, names: &[&str]) -> Command {
    Command::Query { party: from("f", to_tag), modifiers: word(modifiers), names: words(names), subs: vec![] }
}
