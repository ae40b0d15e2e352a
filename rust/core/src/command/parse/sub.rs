//! What follows `&&`.

use super::{Request, Rules, Verb, flag, number, offer, party};
use crate::command::{ErrorCode, Setting, SubCommand};

/// Parses all sub-commands of a request; whatever is wrong with one is E3.
pub(super) fn sub_commands(
    request: &Request<'_>,
    rules: &mut dyn Rules,
) -> Result<Vec<SubCommand>, ErrorCode> {
    request
        .subs
        .iter()
        .map(|words| sub_command(request, words, rules).ok_or(ErrorCode::SUB_COMMAND))
        .collect()
}

fn sub_command(request: &Request<'_>, words: &[&[u8]], rules: &mut dyn Rules) -> Option<SubCommand> {
    let (word, args) = words.split_first()?;
    let (letter, modifiers) = word.split_first()?;
    match letter.to_ascii_uppercase() {
        b'D' if args.is_empty() => Some(SubCommand::Delete { weak: flag(modifiers, b'W')? }),
        b'S' => set(modifiers, args),
        b'L' if has_both_tags(request) => lookup(modifiers, args, rules),
        b'C' if has_both_tags(request) && modifiers.is_empty() && args.len() == 3 => {
            Some(SubCommand::Fork(party(args)))
        }
        b'M' => module(modifiers, args, rules),
        _ => None,
    }
}

/// Only a `U` with a to-tag can complete or fork a session.
fn has_both_tags(request: &Request<'_>) -> bool {
    request.verb == Verb::Update && matches!(request.args.len(), 5 | 7)
}

/// `S[r] ttl=N`, `S[r] tos=N`: any other single character in the place of `r` means nothing.
fn set(modifiers: &[u8], args: &[&[u8]]) -> Option<SubCommand> {
    let reverse = match modifiers {
        [letter] => letter.eq_ignore_ascii_case(&b'R'),
        [] => false,
        _ => return None,
    };
    let [arg] = args else { return None };
    let setting = if let Some(seconds) = arg.strip_prefix(b"ttl=") {
        Setting::Ttl(number::positive(seconds)?)
    } else {
        Setting::Tos(number::positive(arg.strip_prefix(b"tos=")?)?)
    };
    Some(SubCommand::Set { reverse, setting })
}

fn lookup(modifiers: &[u8], args: &[&[u8]], rules: &mut dyn Rules) -> Option<SubCommand> {
    let [addr, port] = args else { return None };
    let (modifiers, media) = offer::media(modifiers, addr, port, rules).ok()?;
    Some(SubCommand::Lookup { modifiers, media })
}

fn module(modifiers: &[u8], args: &[&[u8]], rules: &mut dyn Rules) -> Option<SubCommand> {
    let colon = modifiers.iter().position(|&byte| byte == b':')?;
    let id = number::positive(&modifiers[..colon]).filter(|id| (1..=5).contains(id))?;
    let instance = number::positive(&modifiers[colon + 1..])?;
    if !rules.has_module(id, instance) {
        return None;
    }
    Some(SubCommand::Module { id, instance, args: args.iter().map(|&arg| arg.into()).collect() })
}
