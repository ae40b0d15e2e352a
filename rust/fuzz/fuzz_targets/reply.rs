//! Whatever is read as a reply is written as text that is read as the same.
//!
//! The first byte of the input chooses what kind of command is being answered.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::command::{Reply, ReplyKind};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_first() else { return };
    let kind = kind(choice);
    let Ok(reply) = Reply::parse(text, &kind) else { return };
    let written = reply.encode();
    let read = Reply::parse(&written, &kind);
    // Figures are cut to six decimals, so only what has been written once is certain to stay.
    let again = read.as_ref().map(Reply::encode);
    assert_eq!(again.as_deref(), Ok(written.as_slice()), "{reply:?} became {read:?}");
});

fn kind(choice: u8) -> ReplyKind {
    let names = || vec!["ttl".into(), "nrelayed".into(), "rtpa_jlast".into()];
    match choice % 10 {
        0 => ReplyKind::Done,
        1 => ReplyKind::Version,
        2 => ReplyKind::Feature,
        3 => ReplyKind::Media,
        4 => ReplyKind::Lookup,
        5 => ReplyKind::Stats(vec![]),
        6 => ReplyKind::Stats(names()),
        7 => ReplyKind::Info { load: false },
        8 => ReplyKind::Info { load: true },
        _ => ReplyKind::Counters(names()),
    }
}
