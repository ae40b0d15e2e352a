//! Properties of the control protocol's texts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rtpproxy_core::addr::{Family, parse_numeric, parse_port};
use rtpproxy_core::command::{
    AnyRules, Command, ErrorCode, Info, LocalSpec, MediaAddr, MediaReply, Modifier, Modifiers, NotifyArgs,
    Offer, Party, QUERY_DEFAULT, REPLY_MAX, Reply, ReplyKind, Setting, StatValue, SubCommand, SubResult,
    parse, split_cookie,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_make_the_parser_panic(text in vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, &mut AnyRules);
        let _ = split_cookie(&text);
        for family in [Family::V4, Family::V6] {
            let _ = parse_numeric(&text, family);
        }
        let _ = parse_port(&text);
        let _ = Reply::parse(&text, &ReplyKind::Media);
    }

    #[test]
    fn what_is_accepted_survives_being_written(text in request()) {
        if let Ok(command) = parse(text.as_bytes(), &mut AnyRules) {
            prop_assert_eq!(command.check(), Ok(()), "{}", text);
        }
    }

    #[test]
    fn no_word_is_ignored(text in request()) {
        if let Ok(command) = parse(text.as_bytes(), &mut AnyRules) {
            let written = String::from_utf8(command.encode()).unwrap();
            prop_assert_eq!(text.split_ascii_whitespace().count(), written.split(' ').count(), "{}", text);
            let longer = parse(format!("{text} 1").as_bytes(), &mut AnyRules);
            prop_assert_ne!(longer, Ok(command), "{}", text);
        }
    }

    #[test]
    fn commands_survive_being_written(command in command()) {
        let text = command.encode();
        prop_assert_eq!(parse(&text, &mut AnyRules), Ok(command), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn case_of_letters_has_no_meaning(command in command()) {
        let text = command.encode();
        let word_end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
        // A label is no letter, and a query keeps its modifiers as they came.
        prop_assume!(!text[..word_end].contains(&b'{') && text[0] != b'Q');
        for change in [u8::to_ascii_uppercase, u8::to_ascii_lowercase] {
            let mut text = text.clone();
            text[..word_end].iter_mut().for_each(|byte| *byte = change(byte));
            prop_assert_eq!(parse(&text, &mut AnyRules), Ok(command.clone()));
        }
    }

    #[test]
    fn replies_survive_being_written((reply, kind) in reply(), results in vec(result(), 0..15)) {
        // Only lines have results, and an error has none.
        let is_plain = matches!(reply, Reply::Info(_) | Reply::Error(_));
        let reply = if is_plain { reply } else { reply.with_results(results) };
        let text = reply.encode();
        prop_assume!(!text.ends_with(b" && -1\n") || text.len() < 900);
        prop_assert!(text.len() <= REPLY_MAX && text.ends_with(b"\n"));
        prop_assert_eq!(Reply::parse(&text, &kind), Ok(reply));
    }

    #[test]
    fn results_that_do_not_fit_give_way(results in vec(("[a-z ]{0,200}", any::<bool>()), 1..15)) {
        let result = |(text, done): (String, bool)| {
            if done { SubResult::Done } else { SubResult::Text(format!("x{text}x").into()) }
        };
        let results: Vec<SubResult> = results.into_iter().map(result).collect();
        let whole = results.iter().fold("0".to_owned(), |text, result| format!("{text} && {result}"));
        let shown = results.iter().rposition(|result| *result != SubResult::Done).is_some();
        let text = String::from_utf8(Reply::Done.with_results(results.clone()).encode()).unwrap();
        prop_assert!(text.len() <= REPLY_MAX);
        let text = text.trim_end();
        if let Some(kept) = text.strip_suffix(" && -1") {
            prop_assert!(whole.len() >= REPLY_MAX - 15 * " && 0".len() && whole.starts_with(kept), "{}", text);
            // It was cut where a result begins, and as late as possible.
            let next = whole[kept.len()..].strip_prefix(" && ").unwrap();
            let next = next.split(" && ").next().unwrap();
            prop_assert!(kept.len() + " && ".len() + next.len() + " && -1".len() >= REPLY_MAX
                || kept.len() + " && ".len() + next.len() + 1 > REPLY_MAX - " && -1".len(), "{}", text);
        } else {
            prop_assert!(whole.starts_with(text));
            prop_assert!(!shown || text != "0");
        }
    }

    #[test]
    fn addresses_survive_being_written(ip in any::<IpAddr>(), port in any::<u16>()) {
        prop_assert_eq!(parse_numeric(ip.to_string().as_bytes(), Family::of(ip)), Some(ip));
        prop_assert_eq!(parse_port(port.to_string().as_bytes()), Some(port));
    }
}

/// Texts near the grammar: a beginning that is right, and more that may be.
fn request() -> impl Strategy<Value = String> {
    let beginning = prop::sample::select(vec![
        "V",
        "VF 1",
        "D c f",
        "dW c f",
        "P c p 0 f",
        "p+07 c p session f",
        "S c f",
        "R c f",
        "rsS c f",
        "C c n f",
        "cPs c n f",
        "N c f",
        "nA c f",
        "Q c f",
        "qV c f t",
        "X",
        "I",
        "iLb",
        "G",
        "gvV a",
    ]);
    let offer = (
        prop::sample::select(vec!["U", "u", "L", "l"]),
        vec(
            prop::sample::select(vec![
                "a", "s", "e", "I", "6", "w", "n", "z020", "z+1", "c0,8", "C,", "l127.1", "l[::1]", "L{x}",
                "r1.2.3.4", "R[::]", "z", "l", "k",
            ]),
            0..3,
        ),
        prop::sample::select(vec![
            "0 x",
            "192.0.2.1 05",
            "127.0.1 99999",
            "0.0.0.0 5",
            "::1 5",
            ":: 5",
            "name 5",
        ]),
    )
        .prop_map(|(letter, modifiers, media)| format!("{letter}{} c {media} f", modifiers.concat()));
    let more = vec(prop::sample::select(vec!["t", "t;1", "ttl", "g%20+", "%", "0"]), 0..4);
    let subs = vec(
        prop::sample::select(vec![
            "D",
            "dww",
            "S ttl=5",
            "sx tos=+6",
            "SR ttl=7",
            "M3:1 a%20b",
            "m04:2",
            "C c f t",
            "L6w ::1 5",
            "l 0 x",
            "S",
            "Q c f",
            "",
        ]),
        0..3,
    );
    (prop_oneof![beginning.prop_map(str::to_owned), offer], more, subs).prop_map(|(beginning, more, subs)| {
        let words = [vec![&*beginning], more].concat().join(" ");
        [vec![&*words], subs].concat().join(" && ")
    })
}

fn command() -> impl Strategy<Value = Command> {
    let names = || vec(word(), 0..11);
    prop_oneof![
        Just(Command::Version),
        word().prop_map(Command::Feature),
        offer().prop_map(Command::Update),
        offer().prop_map(|offer| Command::Lookup(for_lookup(offer))),
        (party(), any::<bool>()).prop_map(|(party, weak)| Command::Delete { party, weak }),
        (party(), any::<i32>(), word(), word()).prop_map(|(party, count, prompt, codecs)| Command::Play {
            party,
            count,
            prompt,
            codecs
        }),
        party().prop_map(Command::StopPlay),
        (party(), any::<bool>()).prop_map(|(party, single_file)| Command::Record { party, single_file }),
        (party(), word(), any::<bool>(), any::<bool>()).prop_map(
            |(party, target, single_file, report_port)| {
                Command::Copy { party, target, single_file, report_port }
            }
        ),
        (party(), any::<bool>()).prop_map(|(party, both)| Command::StopRecord { party, both }),
        (party(), word()).prop_map(|(party, target)| Command::StopCopy { party, target }),
        (party(), "[a-zA-Z0-9]{0,3}", names(), vec(plain_sub_command(), 0..15)).prop_map(
            |(party, modifiers, names, subs)| Command::Query {
                names: if party.to_tag.is_some() { names } else { vec![] },
                party,
                modifiers: modifiers.as_bytes().into(),
                subs,
            }
        ),
        Just(Command::DeleteAll),
        any::<bool>().prop_map(|load| Command::Info { load }),
        any::<u64>().prop_map(|after| Command::Recordings { after }),
        (any::<bool>(), vec(word(), 0..22)).prop_map(|(verbose, names)| Command::Counters { verbose, names }),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let notify =
        (word(), vec(any::<u8>(), 1..20)).prop_map(|(socket, tag)| NotifyArgs { socket, tag: tag.into() });
    let sub = prop_oneof![
        2 => plain_sub_command(),
        1 => (word(), word(), word()).prop_map(|(call_id, from_tag, to_tag)| {
            SubCommand::Fork(Party { call_id: (&*call_id).into(), from_tag: (&*from_tag).into(), to_tag: Some((&*to_tag).into()) })
        }),
        1 => media().prop_map(|(modifiers, media)| SubCommand::Lookup { modifiers, media }),
    ];
    (party(), media(), option::of(notify), vec(sub, 0..15)).prop_map(
        |(party, (modifiers, media), notify, subs)| {
            let subs = if party.to_tag.is_some() { subs } else { vec![] };
            Offer { party, modifiers, media, notify, subs }
        },
    )
}

/// The same offer without what only an update may carry.
fn for_lookup(offer: Offer) -> Offer {
    let allowed = |sub: &SubCommand| !matches!(sub, SubCommand::Fork(_) | SubCommand::Lookup { .. });
    Offer { notify: None, subs: offer.subs.into_iter().filter(allowed).collect(), ..offer }
}

fn plain_sub_command() -> impl Strategy<Value = SubCommand> {
    let positive = || 1..=i32::MAX as u32;
    let setting = prop_oneof![positive().prop_map(Setting::Ttl), positive().prop_map(Setting::Tos)];
    prop_oneof![
        any::<bool>().prop_map(|weak| SubCommand::Delete { weak }),
        (any::<bool>(), setting).prop_map(|(reverse, setting)| SubCommand::Set { reverse, setting }),
        (1..=5_u32, positive(), vec(word(), 0..22)).prop_map(|(id, instance, args)| SubCommand::Module {
            id,
            instance,
            args
        }),
    ]
}

/// Modifiers and a media address of the family they say.
fn media() -> impl Strategy<Value = (Modifiers, MediaAddr)> {
    (modifiers(), any::<[u8; 4]>(), any::<Ipv6Addr>(), any::<u16>(), 0..4).prop_map(
        |(modifiers, v4, v6, port, choice)| {
            let ip = if modifiers.has(&Modifier::Ipv6) { IpAddr::V6(v6) } else { IpAddr::from(v4) };
            let media = match choice {
                0 => MediaAddr::Unknown,
                1 => MediaAddr::Hold,
                _ if ip.is_unspecified() => MediaAddr::Hold,
                _ => MediaAddr::At(SocketAddr::new(ip, port)),
            };
            (modifiers, media)
        },
    )
}

/// Modifiers in an order that text can have: one list of codecs, and no 6 right behind a number.
fn modifiers() -> impl Strategy<Value = Modifiers> {
    vec(modifier(), 0..8).prop_map(|list| {
        let mut kept: Vec<Modifier> = Vec::new();
        for modifier in list {
            let is_codecs = |modifier: &Modifier| matches!(modifier, Modifier::Codecs(_));
            let repeated = is_codecs(&modifier) && kept.iter().any(is_codecs);
            let glued = modifier == Modifier::Ipv6 && kept.last().is_some_and(ends_in_number);
            if !repeated && !glued {
                kept.push(modifier);
            }
        }
        Modifiers(kept)
    })
}

fn ends_in_number(modifier: &Modifier) -> bool {
    matches!(
        modifier,
        Modifier::Repacketize(_)
            | Modifier::Codecs(_)
            | Modifier::RouteTo(IpAddr::V4(_))
            | Modifier::Local(LocalSpec::Addr(IpAddr::V4(_)))
    )
}

fn modifier() -> impl Strategy<Value = Modifier> {
    prop_oneof![
        Just(Modifier::Asymmetric),
        Just(Modifier::Symmetric),
        Just(Modifier::External),
        Just(Modifier::Internal),
        Just(Modifier::Ipv6),
        Just(Modifier::Weak),
        (1..=999_u16).prop_map(Modifier::Repacketize),
        "[0-9,]{1,10}".prop_map(|list| Modifier::Codecs(list.into())),
        address().prop_map(|ip| Modifier::Local(LocalSpec::Addr(ip))),
        "[^}\\s\0]{0,8}".prop_map(|label| Modifier::Local(LocalSpec::Label(label.into()))),
        address().prop_map(Modifier::RouteTo),
        Just(Modifier::NewPort),
    ]
}

/// Addresses, among them the kinds that have a short form of their own.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => any::<IpAddr>(),
        1 => any::<[u8; 4]>().prop_map(|bytes| IpAddr::V6(std::net::Ipv4Addr::from(bytes).to_ipv6_mapped())),
        1 => any::<[u8; 4]>().prop_map(|bytes| IpAddr::V6(std::net::Ipv4Addr::from(bytes).to_ipv6_compatible())),
    ]
}

fn party() -> impl Strategy<Value = Party> {
    (word(), word(), option::of(word())).prop_map(|(call_id, from_tag, to_tag)| Party {
        call_id: (&*call_id).into(),
        from_tag: (&*from_tag).into(),
        to_tag: to_tag.map(|tag| (&*tag).into()),
    })
}

/// Any bytes that make a word.
fn word() -> impl Strategy<Value = Box<[u8]>> {
    vec(any::<u8>(), 1..12)
        .prop_map(|bytes| {
            bytes.into_iter().map(|byte| if b"\0\t\n\r ".contains(&byte) { b'%' } else { byte })
        })
        .prop_map(Iterator::collect::<Box<[u8]>>)
        .prop_filter("starts a sub-command", |word| **word != *b"&&")
}

fn result() -> impl Strategy<Value = SubResult> {
    prop_oneof![
        Just(SubResult::Done),
        Just(SubResult::Failed),
        (1_u16.., option::of(any::<IpAddr>())).prop_map(|(port, addr)| {
            let media = MediaReply { port, addr: addr.map(|ip| ip.to_string().into()), ipv6: false };
            SubResult::Text(media.to_string().into())
        }),
        "[a-zA-Z][a-zA-Z:]{0,20}( [a-zA-Z:]{1,20}){0,2}".prop_map(|text| SubResult::Text(text.into())),
    ]
}

fn reply() -> impl Strategy<Value = (Reply, ReplyKind)> {
    let media = || {
        (1_u16.., option::of((any::<IpAddr>(), any::<bool>()))).prop_map(|(port, addr)| MediaReply {
            port,
            ipv6: addr.is_some_and(|(_, ipv6)| ipv6),
            addr: addr.map(|(ip, _)| ip.to_string().into()),
        })
    };
    let values = |name| {
        vec((name, any::<u64>(), any::<bool>()), 1..22).prop_map(|figures| {
            let value = |count: u64, real| {
                if real {
                    StatValue::Real((count % 1_000_000_000) as f64 / 1e6)
                } else {
                    StatValue::Count(count)
                }
            };
            figures
                .into_iter()
                .map(|(name, count, real): (String, u64, bool)| (Box::from(name), value(count, real)))
                .collect::<Vec<(Box<str>, StatValue)>>()
        })
    };
    let names = |values: &[(Box<str>, StatValue)]| values.iter().map(|(name, _)| name.clone()).collect();
    let info = (any::<[u64; 5]>(), option::of(0_u32..1_000_000)).prop_map(|(counts, load)| {
        let [sessions_created, sessions_active, streams_active, packets_received, packets_transmitted] =
            counts;
        let load = load.map(f64::from);
        Info {
            sessions_created,
            sessions_active,
            streams_active,
            packets_received,
            packets_transmitted,
            load,
        }
    });
    prop_oneof![
        Just((Reply::Done, ReplyKind::Done)),
        Just((Reply::Version, ReplyKind::Version)),
        any::<bool>().prop_map(|known| (Reply::Feature(known), ReplyKind::Feature)),
        media().prop_map(|media| (Reply::Media(media), ReplyKind::Media)),
        media().prop_map(|media| (Reply::Media(media), ReplyKind::Lookup)),
        Just((Reply::NoSession, ReplyKind::Lookup)),
        (any::<bool>(), any::<[u32; 5]>()).prop_map(|(verbose, counts)| {
            let values = QUERY_DEFAULT.iter().zip(counts).map(|(&name, count)| {
                let signed = StatValue::Signed(i64::from(count.cast_signed()));
                (name.into(), if name == "ttl" { signed } else { StatValue::Count(count.into()) })
            });
            (Reply::Stats { verbose, values: values.collect() }, ReplyKind::Stats(vec![]))
        }),
        (any::<bool>(), values("[a-z_]{4,12}")).prop_map(move |(verbose, values)| {
            let kind = ReplyKind::Counters(names(&values));
            (Reply::Counters { verbose, values }, kind)
        }),
        info.prop_map(|info| (Reply::Info(info), ReplyKind::Info { load: info.load.is_some() })),
        any::<u16>().prop_map(|code| (Reply::Error(ErrorCode(code)), ReplyKind::Lookup)),
    ]
}
