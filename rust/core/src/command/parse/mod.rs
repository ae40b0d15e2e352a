//! Text to [`Command`].
//!
//! The checks come in the order of the protocol: the letter, the number of arguments, modifiers and
//! sub-commands where none are taken, what the command itself looks at, its sub-commands.

use std::ops::RangeInclusive;

use super::token::{self, Words};
use super::{CallId, Command, ErrorCode, Modifier, Modifiers, Party};

mod modifiers;
mod number;
mod offer;
mod sub;

pub(crate) use number::signed;
pub(crate) use offer::url_decode;

/// The rules that depend on the configuration, asked at the place where the protocol checks them.
///
/// The sub-command `L` is asked about as well, after the command it belongs to; what it violates becomes E3.
pub trait Rules {
    /// May `modifier` stand behind the `earlier` ones? E11, E12, E31, E32.
    fn modifier(&mut self, earlier: &[Modifier], modifier: &Modifier) -> Result<(), ErrorCode>;

    /// Is there a local address of the family that `modifiers` ask for? E36.
    fn family(&mut self, modifiers: &Modifiers) -> Result<(), ErrorCode>;

    /// Is there such a module, and does it take sub-commands? E3 if not.
    fn has_module(&mut self, _id: u32, _instance: u32) -> bool {
        false
    }
}

/// Accepts everything that the grammar does.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyRules;

impl Rules for AnyRules {
    fn modifier(&mut self, _earlier: &[Modifier], _modifier: &Modifier) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn family(&mut self, _modifiers: &Modifiers) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn has_module(&mut self, _id: u32, _instance: u32) -> bool {
        true
    }
}

/// Parses one command. The whole request is consumed, or an error code says why not.
pub fn parse(text: &[u8], rules: &mut dyn Rules) -> Result<Command, ErrorCode> {
    let tokens = token::split(text)?;
    let (verb, modifiers) = Verb::of(tokens.main[0]).ok_or(ErrorCode::UNKNOWN_COMMAND)?;
    if !verb.word_count().contains(&tokens.main.len()) {
        return Err(ErrorCode::ARGUMENT_COUNT);
    }
    if !verb.takes_modifiers() && !modifiers.is_empty() {
        return Err(ErrorCode::MODIFIER_NOT_TAKEN);
    }
    if !verb.takes_sub_commands() && !tokens.subs.is_empty() {
        return Err(ErrorCode::SUB_COMMAND);
    }
    command(&Request { verb, modifiers, args: &tokens.main[1..], subs: &tokens.subs }, rules)
}

/// A request whose shape is right for its verb.
struct Request<'a> {
    verb: Verb,
    /// What is glued to the command word.
    modifiers: &'a [u8],
    /// The words behind the command word.
    args: &'a [&'a [u8]],
    subs: &'a [Words<'a>],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Version,
    Feature,
    Update,
    Lookup,
    Delete,
    Play,
    StopPlay,
    Record,
    Copy,
    StopRecord,
    Query,
    DeleteAll,
    Info,
    Counters,
    Recordings,
    StopCopy,
}

impl Verb {
    /// The verb of a command word, and the modifiers behind it.
    fn of(word: &[u8]) -> Option<(Self, &[u8])> {
        for (own, verb) in [(RECORDINGS, Self::Recordings), (STOP_COPY, Self::StopCopy)] {
            if word.eq_ignore_ascii_case(own) {
                return Some((verb, b""));
            }
        }
        let (letter, modifiers) = word.split_first()?;
        let verb = match letter.to_ascii_uppercase() {
            b'V' => match modifiers {
                [b'F' | b'f', behind @ ..] => return Some((Self::Feature, behind)),
                _ => Self::Version,
            },
            b'U' => Self::Update,
            b'L' => Self::Lookup,
            b'D' => Self::Delete,
            b'P' => Self::Play,
            b'S' => Self::StopPlay,
            b'R' => Self::Record,
            b'C' => Self::Copy,
            b'N' => Self::StopRecord,
            b'Q' => Self::Query,
            b'X' => Self::DeleteAll,
            b'I' => Self::Info,
            b'G' => Self::Counters,
            _ => return None,
        };
        Some((verb, modifiers))
    }

    /// How many words the command may have, the command word included.
    fn word_count(self) -> RangeInclusive<usize> {
        match self {
            Self::Version | Self::DeleteAll | Self::Info => 1..=1,
            Self::Recordings => 1..=2,
            Self::Feature => 2..=2,
            Self::Update => 5..=8,
            Self::Lookup | Self::Play => 5..=6,
            Self::Delete | Self::StopPlay | Self::Record | Self::StopRecord => 3..=4,
            Self::Copy | Self::StopCopy => 4..=5,
            Self::Query => 3..=15,
            Self::Counters => 1..=23,
        }
    }

    fn takes_modifiers(self) -> bool {
        !matches!(self, Self::Version | Self::Feature | Self::StopPlay | Self::DeleteAll)
    }

    fn takes_sub_commands(self) -> bool {
        matches!(self, Self::Update | Self::Lookup | Self::Query)
    }
}

fn command(request: &Request<'_>, rules: &mut dyn Rules) -> Result<Command, ErrorCode> {
    let args = request.args;
    Ok(match request.verb {
        Verb::Version => Command::Version,
        Verb::Feature => Command::Feature(args[0].into()),
        Verb::Update => Command::Update(offer::update(request, rules)?),
        Verb::Lookup => Command::Lookup(offer::lookup(request, rules)?),
        Verb::Delete => Command::Delete { weak: delete_modifiers(request.modifiers)?, party: party(args) },
        Verb::Play => Command::Play {
            count: play_count(request.modifiers)?,
            party: party_of(args[0], &args[3..]),
            prompt: args[1].into(),
            codecs: args[2].into(),
        },
        Verb::StopPlay => Command::StopPlay(party(args)),
        Verb::Record => {
            Command::Record { single_file: record_modifiers(request.modifiers)?, party: party(args) }
        }
        Verb::Copy => copy(request)?,
        Verb::StopRecord => {
            Command::StopRecord { both: stop_record_modifiers(request.modifiers)?, party: party(args) }
        }
        Verb::Query => Command::Query {
            party: party(&args[..args.len().min(3)]),
            modifiers: request.modifiers.into(),
            names: args.iter().skip(3).map(|&name| name.into()).collect(),
            subs: sub::sub_commands(request, rules)?,
        },
        Verb::DeleteAll => Command::DeleteAll,
        Verb::Info => Command::Info { load: info_modifiers(request.modifiers)? },
        Verb::Counters => Command::Counters {
            verbose: flag(request.modifiers, b'V').ok_or(ErrorCode::COUNTERS_MODIFIER)?,
            names: args.iter().map(|&name| name.into()).collect(),
        },
        Verb::StopCopy => Command::StopCopy { party: party_of(args[0], &args[2..]), target: args[1].into() },
        Verb::Recordings => Command::Recordings { after: recording_number(args)? },
    })
}

/// callid from_tag [to_tag]
fn party(args: &[&[u8]]) -> Party {
    party_of(args[0], &args[1..])
}

fn party_of(call_id: &[u8], tags: &[&[u8]]) -> Party {
    Party {
        call_id: CallId::from(call_id),
        from_tag: tags[0].into(),
        to_tag: tags.get(1).map(|&tag| tag.into()),
    }
}

fn delete_modifiers(modifiers: &[u8]) -> Result<bool, ErrorCode> {
    flag(modifiers, b'W').ok_or(ErrorCode::DELETE_MODIFIER)
}

fn play_count(modifiers: &[u8]) -> Result<i32, ErrorCode> {
    if modifiers.is_empty() { Ok(1) } else { signed(modifiers).ok_or(ErrorCode::PLAY_COUNT) }
}

fn record_modifiers(modifiers: &[u8]) -> Result<bool, ErrorCode> {
    for letter in modifiers {
        match letter.to_ascii_uppercase() {
            b'S' => {}
            b'P' => return Err(ErrorCode::MODIFIER_ORDER),
            _ => return Err(ErrorCode::RECORD_MODIFIER),
        }
    }
    Ok(!modifiers.is_empty())
}

fn copy(request: &Request<'_>) -> Result<Command, ErrorCode> {
    let (mut single_file, mut report_port) = (false, false);
    for letter in request.modifiers {
        match letter.to_ascii_uppercase() {
            b'S' => single_file = true,
            b'P' => report_port = true,
            _ => return Err(ErrorCode::RECORD_MODIFIER),
        }
    }
    let party = party_of(request.args[0], &request.args[2..]);
    Ok(Command::Copy { party, target: request.args[1].into(), single_file, report_port })
}

fn stop_record_modifiers(modifiers: &[u8]) -> Result<bool, ErrorCode> {
    match modifiers {
        [] => Ok(false),
        [b'A' | b'a'] => Ok(true),
        [b'A' | b'a', ..] => Err(ErrorCode::MODIFIER_ORDER),
        _ => Err(ErrorCode::RECORD_MODIFIER),
    }
}

fn info_modifiers(modifiers: &[u8]) -> Result<bool, ErrorCode> {
    let mut load = false;
    for letter in modifiers {
        match letter.to_ascii_uppercase() {
            b'B' => {} // asks for the format that is the only one
            b'L' => load = true,
            _ => return Err(ErrorCode::INFO_MODIFIER),
        }
    }
    Ok(load)
}

/// The number behind which `?recordings` goes on; 0 without one.
fn recording_number(args: &[&[u8]]) -> Result<u64, ErrorCode> {
    let Some(word) = args.first() else { return Ok(0) };
    let digits = str::from_utf8(word).ok().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(ErrorCode::ARGUMENT_COUNT)
}

/// Whether `letter` is given, any number of times; `None` if another one is.
fn flag(modifiers: &[u8], letter: u8) -> Option<bool> {
    modifiers.iter().all(|given| given.eq_ignore_ascii_case(&letter)).then_some(!modifiers.is_empty())
}

/// The commands that are no letters: no script for the C program, which answers `E0`, can mean them.
pub(super) const RECORDINGS: &[u8] = b"?recordings";
pub(super) const STOP_COPY: &[u8] = b"?uncopy";

#[cfg(test)]
mod tests;
