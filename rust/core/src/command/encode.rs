//! [`Command`] to text.

use std::io::Write as _;
use std::net::IpAddr;

use super::{
    AnyRules, Command, ErrorCode, LocalSpec, MediaAddr, Modifier, Modifiers, Offer, Party, ReplyKind,
    Setting, SubCommand, parse, parse::RECORDINGS, parse::STOP_COPY,
};

impl Command {
    /// The text of the command, without a line feed: [`parse`] reads it back as the same command.
    ///
    /// Not every value has a text, such as a call-id with a space in it. [`Self::check`] tells.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Line::default();
        line.command(self);
        line.0
    }

    /// Makes sure that the text of the command means the command.
    ///
    /// The error is what a receiver of the text would answer, or E5 if it would take it for another command.
    pub fn check(&self) -> Result<(), ErrorCode> {
        if parse(&self.encode(), &mut AnyRules)? == *self { Ok(()) } else { Err(ErrorCode::TOKEN) }
    }

    /// What kind of answer the command expects.
    pub fn reply_kind(&self) -> ReplyKind {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into();
        match self {
            Self::Version => ReplyKind::Version,
            Self::Feature(_) => ReplyKind::Feature,
            Self::Update(_) | Self::Copy { report_port: true, .. } => ReplyKind::Media,
            Self::Lookup(_) => ReplyKind::Lookup,
            Self::Query { names, .. } => ReplyKind::Stats(names.iter().map(|name| text(name)).collect()),
            Self::Recordings { .. } => ReplyKind::Recordings,
            Self::Info { load } => ReplyKind::Info { load: *load },
            Self::Counters { names, .. } => {
                ReplyKind::Counters(names.iter().map(|name| text(name)).collect())
            }
            Self::Delete { .. }
            | Self::Play { .. }
            | Self::StopPlay(_)
            | Self::Record { .. }
            | Self::Copy { report_port: false, .. }
            | Self::StopRecord { .. }
            | Self::StopCopy { .. }
            | Self::DeleteAll => ReplyKind::Done,
        }
    }

    /// What follows `&&`.
    pub fn subs(&self) -> &[SubCommand] {
        match self {
            Self::Update(offer) | Self::Lookup(offer) => &offer.subs,
            Self::Query { subs, .. } => subs,
            _ => &[],
        }
    }
}

/// A request being written.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn command(&mut self, command: &Command) {
        match command {
            Command::Version => self.glue(b"V"),
            Command::Feature(number) => {
                self.glue(b"VF");
                self.word(number);
            }
            Command::Update(offer) => self.offer(b"U", offer),
            Command::Lookup(offer) => self.offer(b"L", offer),
            Command::Delete { party, weak } => {
                self.letters(b"D", [(*weak, b"w")]);
                self.party(party);
            }
            Command::Play { party, count, prompt, codecs } => {
                self.glue(b"P");
                if *count != 1 {
                    self.glue(count.to_string().as_bytes());
                }
                self.word(party.call_id.as_bytes());
                self.word(prompt);
                self.word(codecs);
                self.tags(party);
            }
            Command::StopPlay(party) => {
                self.glue(b"S");
                self.party(party);
            }
            Command::Record { party, single_file } => {
                self.letters(b"R", [(*single_file, b"s")]);
                self.party(party);
            }
            Command::Copy { party, target, single_file, report_port } => {
                self.letters(b"C", [(*single_file, b"s"), (*report_port, b"p")]);
                self.word(party.call_id.as_bytes());
                self.word(target);
                self.tags(party);
            }
            Command::StopRecord { party, both } => {
                self.letters(b"N", [(*both, b"a")]);
                self.party(party);
            }
            Command::Query { party, modifiers, names, subs } => {
                self.glue(b"Q");
                self.glue(modifiers);
                self.party(party);
                self.words(names);
                self.subs(subs);
            }
            Command::DeleteAll => self.glue(b"X"),
            Command::Info { load } => self.letters(b"I", [(*load, b"l")]),
            Command::Counters { verbose, names } => {
                self.letters(b"G", [(*verbose, b"v")]);
                self.words(names);
            }
            Command::StopCopy { party, target } => {
                self.glue(STOP_COPY);
                self.word(party.call_id.as_bytes());
                self.word(target);
                self.tags(party);
            }
            Command::Recordings { after } => {
                self.glue(RECORDINGS);
                if *after > 0 {
                    self.word(after.to_string().as_bytes());
                }
            }
        }
    }

    fn offer(&mut self, letter: &[u8], offer: &Offer) {
        self.glue(letter);
        self.modifiers(&offer.modifiers);
        self.word(offer.party.call_id.as_bytes());
        self.media(&offer.modifiers, offer.media);
        self.tags(&offer.party);
        if let Some(notify) = &offer.notify {
            self.word(&notify.socket);
            self.word(&url_encode(&notify.tag));
        }
        self.subs(&offer.subs);
    }

    fn modifiers(&mut self, modifiers: &Modifiers) {
        let start = self.0.len();
        let mut ends_in_number = false;
        for modifier in &modifiers.0 {
            // Behind a number the 6 would become a part of it; where it stands has no meaning.
            if *modifier == Modifier::Ipv6 && ends_in_number {
                self.0.insert(start, b'6');
            } else {
                self.modifier(modifier);
                ends_in_number = takes_digits(modifier);
            }
        }
    }

    fn modifier(&mut self, modifier: &Modifier) {
        match modifier {
            Modifier::Asymmetric => self.glue(b"a"),
            Modifier::Symmetric => self.glue(b"s"),
            Modifier::External => self.glue(b"e"),
            Modifier::Internal => self.glue(b"i"),
            Modifier::Ipv6 => self.glue(b"6"),
            Modifier::Weak => self.glue(b"w"),
            Modifier::Repacketize(milliseconds) => self.glue(format!("z{milliseconds}").as_bytes()),
            Modifier::Codecs(list) => self.glue(format!("c{list}").as_bytes()),
            Modifier::Local(LocalSpec::Label(label)) => self.glue(format!("l{{{label}}}").as_bytes()),
            Modifier::Local(LocalSpec::Addr(ip)) => self.modifier_addr(b'l', *ip),
            Modifier::RouteTo(ip) => self.modifier_addr(b'r', *ip),
            Modifier::NewPort => self.glue(b"n"),
        }
    }

    fn modifier_addr(&mut self, letter: u8, ip: IpAddr) {
        self.0.push(letter);
        match ip {
            IpAddr::V4(ip) => self.glue(ip.to_string().as_bytes()),
            // The short form of some addresses has dots, which are not taken between brackets.
            IpAddr::V6(ip) if ip.to_string().contains('.') => {
                let groups = ip.segments().map(|group| format!("{group:x}"));
                self.glue(format!("[{}]", groups.join(":")).as_bytes());
            }
            IpAddr::V6(ip) => self.glue(format!("[{ip}]").as_bytes()),
        }
    }

    fn media(&mut self, modifiers: &Modifiers, media: MediaAddr) {
        match media {
            MediaAddr::Unknown => self.text("0 0"),
            MediaAddr::Hold if modifiers.has(&Modifier::Ipv6) => self.text(":: 0"),
            MediaAddr::Hold => self.text("0.0.0.0 0"),
            MediaAddr::At(addr) => self.text(&format!("{} {}", addr.ip(), addr.port())),
        }
    }

    fn subs(&mut self, subs: &[SubCommand]) {
        for sub in subs {
            self.text("&& ");
            match sub {
                SubCommand::Delete { weak } => self.letters(b"D", [(*weak, b"w")]),
                SubCommand::Set { reverse, setting } => {
                    self.letters(b"S", [(*reverse, b"r")]);
                    match setting {
                        Setting::Ttl(seconds) => self.text(&format!("ttl={seconds}")),
                        Setting::Tos(tos) => self.text(&format!("tos={tos}")),
                    }
                }
                SubCommand::Lookup { modifiers, media } => {
                    self.glue(b"L");
                    self.modifiers(modifiers);
                    self.media(modifiers, *media);
                }
                SubCommand::Fork(source) => {
                    self.glue(b"C");
                    self.party(source);
                }
                SubCommand::Module { id, instance, args } => {
                    self.glue(format!("M{id}:{instance}").as_bytes());
                    self.words(args);
                }
            }
        }
    }

    fn party(&mut self, party: &Party) {
        self.word(party.call_id.as_bytes());
        self.tags(party);
    }

    fn tags(&mut self, party: &Party) {
        self.word(party.from_tag.as_bytes());
        if let Some(tag) = &party.to_tag {
            self.word(tag.as_bytes());
        }
    }

    /// A command letter and those of the modifiers that are on.
    fn letters<const N: usize>(&mut self, command: &[u8], modifiers: [(bool, &[u8; 1]); N]) {
        self.glue(command);
        for (_, letter) in modifiers.into_iter().filter(|(on, _)| *on) {
            self.glue(letter);
        }
    }

    fn words(&mut self, words: &[Box<[u8]>]) {
        for word in words {
            self.word(word);
        }
    }

    fn text(&mut self, text: &str) {
        self.word(text.as_bytes());
    }

    fn word(&mut self, word: &[u8]) {
        self.glue(b" ");
        self.glue(word);
    }

    fn glue(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// True if a digit behind the modifier would be read as part of it.
fn takes_digits(modifier: &Modifier) -> bool {
    matches!(
        modifier,
        Modifier::Repacketize(_)
            | Modifier::Codecs(_)
            | Modifier::Local(LocalSpec::Addr(IpAddr::V4(_)))
            | Modifier::RouteTo(IpAddr::V4(_))
    )
}

fn url_encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte);
        } else {
            write!(text, "%{byte:02X}").expect("a vector takes every byte");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_in_the_shortest_form() {
        let rows = [
            ("v", "V"),
            ("vf 20040107", "VF 20040107"),
            ("U  c 127.0.1 04000 f t s r%20%3a", "U c 127.0.0.1 4000 f t s r%20%3A"),
            ("UEI6 c :: 7 f", "Uei6 c :: 0 f"),
            ("L c 0.0.0.0 7 f t && d && sx ttl=05", "L c 0.0.0.0 0 f t && D && S ttl=5"),
            ("l c 0 abc f", "L c 0 0 f"),
            ("Uz+020r[0:0::1]l{x}Nc0,8 c 0 0 f", "Uz20r[::1]l{x}nc0,8 c 0 0 f"),
            ("ul[::ffff:7f00:1] c 0 0 f", "Ul[0:0:0:0:0:ffff:7f00:1] c 0 0 f"),
            ("U c 0 0 f t && l6 ::1 5 && C x y z", "U c 0 0 f t && L6 ::1 5 && C x y z"),
            ("Q c f && M3:01 a%20b 101", "Q c f && M3:1 a%20b 101"),
            ("Dww c f", "Dw c f"),
            ("P1 c p session f", "P c p session f"),
            ("p-01 c p 0 f t", "P-1 c p 0 f t"),
            ("S c f", "S c f"),
            ("RSs c f", "Rs c f"),
            ("Cps c n f", "Csp c n f"),
            ("NA c f", "Na c f"),
            ("QX c f t ttl", "QX c f t ttl"),
            ("x", "X"),
            ("IBL", "Il"),
            ("gV a b", "Gv a b"),
        ];
        for (text, canonical) in rows {
            let command = parse(text.as_bytes(), &mut AnyRules).unwrap();
            assert_eq!(String::from_utf8(command.encode()).unwrap(), canonical, "{text}");
            assert_eq!(command.check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_six_never_becomes_part_of_a_number() {
        let Ok(Command::Update(offer)) = parse(b"U c 0 0 f", &mut AnyRules) else { panic!() };
        let modifiers = vec![Modifier::Weak, Modifier::Repacketize(20), Modifier::Ipv6];
        let command = Command::Update(Offer { modifiers: Modifiers(modifiers), ..offer });
        assert_eq!(command.encode(), b"U6wz20 c 0 0 f");
    }

    #[test]
    fn values_that_have_no_text() {
        let party = |call_id: &str, from_tag: &str| Party {
            call_id: call_id.into(),
            from_tag: from_tag.into(),
            to_tag: None,
        };
        let rows = [
            (Command::StopPlay(party("a b", "f")), ErrorCode::TOKEN),
            (Command::StopPlay(party("a", "f\nX")), ErrorCode::TOKEN),
            (Command::StopPlay(party("a b", "f t")), ErrorCode::ARGUMENT_COUNT),
            (Command::StopPlay(party("", "f")), ErrorCode::ARGUMENT_COUNT),
            (Command::StopPlay(party("c", "f && D")), ErrorCode::SUB_COMMAND),
        ];
        for (command, code) in rows {
            assert_eq!(command.check(), Err(code), "{command:?}");
        }
    }
}
