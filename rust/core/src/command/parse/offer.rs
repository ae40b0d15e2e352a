//! `U` and `L`.

use std::net::SocketAddr;

use super::{Request, Rules, modifiers, party_of, sub};
use crate::addr::{Family, parse_numeric, parse_port};
use crate::command::{ErrorCode, MediaAddr, Modifier, Modifiers, NotifyArgs, Offer};

/// callid addr port from_tag \[to_tag\] \[notify_socket notify_tag\]
pub(super) fn update(request: &Request<'_>, rules: &mut dyn Rules) -> Result<Offer, ErrorCode> {
    let (args, notify) = match request.args.len() {
        pair_at @ (6 | 7) => request.args.split_at(pair_at - 2),
        _ => (request.args, [].as_slice()),
    };
    let notify = match notify {
        [socket, tag] => {
            let tag = url_decode(tag).ok_or(ErrorCode::NOTIFY_TAG)?;
            Some(NotifyArgs { socket: (*socket).into(), tag })
        }
        _ => None,
    };
    Ok(Offer { notify, ..offer(request, args, rules)? })
}

/// callid addr port from_tag \[to_tag\]
pub(super) fn lookup(request: &Request<'_>, rules: &mut dyn Rules) -> Result<Offer, ErrorCode> {
    offer(request, request.args, rules)
}

/// The modifiers and the media address, in the order in which the protocol looks at them.
pub(super) fn media(
    modifiers: &[u8],
    addr: &[u8],
    port: &[u8],
    rules: &mut dyn Rules,
) -> Result<(Modifiers, MediaAddr), ErrorCode> {
    let modifiers = modifiers::parse(modifiers, rules)?;
    rules.family(&modifiers)?;
    let family = if modifiers.has(&Modifier::Ipv6) { Family::V6 } else { Family::V4 };
    let media = media_addr(family, addr, port).ok_or(ErrorCode::MEDIA_ADDRESS)?;
    Ok((modifiers, media))
}

fn offer(request: &Request<'_>, args: &[&[u8]], rules: &mut dyn Rules) -> Result<Offer, ErrorCode> {
    let (modifiers, media) = media(request.modifiers, args[1], args[2], rules)?;
    let party = party_of(args[0], &args[3..]);
    let subs = sub::sub_commands(request, rules)?;
    Ok(Offer { party, modifiers, media, notify: None, subs })
}

/// An address of a length that none can have is no address, and then the port is not looked at.
fn media_addr(family: Family, addr: &[u8], port: &[u8]) -> Option<MediaAddr> {
    let lengths = match family {
        Family::V4 => 7..=15,
        Family::V6 => 2..=45,
    };
    if !lengths.contains(&addr.len()) {
        return Some(MediaAddr::Unknown);
    }
    let ip = parse_numeric(addr, family)?;
    let port = parse_port(port)?;
    Some(if ip.is_unspecified() { MediaAddr::Hold } else { MediaAddr::At(SocketAddr::new(ip, port)) })
}

/// `%XX` is a byte, `+` is a space; `None` if an escape is broken.
pub(crate) fn url_decode(text: &[u8]) -> Option<Box<[u8]>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                hex_digit(digits[0])? << 4 | hex_digit(digits[1])?
            }
            _ => byte,
        });
    }
    Some(decoded.into())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
