//! Listen addresses and bridge mode: `-l`, `-6` and `-A` together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtpproxy_core::addr::{Family, LocalAddr};
use rtpproxy_core::config::ListenAddr;
use rtpproxy_relay::hostport;

use crate::flags::{Advertise, ListenFlag};

/// The addresses that media ports are bound to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The first is the default, or the internal one in bridge mode.
    pub(crate) addrs: Vec<ListenAddr>,
    /// The external one in bridge mode.
    pub(crate) external: Option<LocalAddr>,
    /// `-A` was given, but there is nothing to bridge.
    pub(crate) advertise_unused: bool,
}

/// Works out the listen addresses. `names`: host names may be resolved.
pub(crate) fn listen(
    flags: &[ListenFlag],
    advertise: Option<&Advertise>,
    names: bool,
) -> Result<Listen, String> {
    if flags.len() > LISTEN_MAX {
        return Err(format!("more than {LISTEN_MAX} listen addresses"));
    }
    let mut parts = flags.iter().map(Part::parse).collect::<Result<Vec<_>, _>>()?;
    let bridge = take_bridge(&mut parts)?;
    check_labels(&parts, bridge.is_some())?;
    let mut addrs = Vec::new();
    let mut external = None;
    let advertise_unused = advertise.is_some() && bridge.is_none();
    if let Some(bridge) = bridge {
        let [internal, outer] = bridge.locals(advertise, names)?;
        addrs.push(ListenAddr { label: None, addr: internal });
        external = Some(outer);
    }
    // The default address stands first, also when labelled ones were given before it.
    parts.sort_by_key(|part| part.label.is_some());
    for part in &parts {
        let ip = resolve(part.host, part.family, names)?;
        let addr = LocalAddr { ip, advertised: part.advertised.map(Into::into) };
        addrs.push(ListenAddr { label: part.label.map(Into::into), addr });
    }
    if addrs.is_empty() {
        addrs.push(ListenAddr { label: None, addr: LocalAddr::plain(IpAddr::from([0, 0, 0, 0])) });
    }
    Ok(Listen { addrs, external, advertise_unused })
}

/// One `-l` or `-6`, taken apart: `[LABEL@]HOST[/SECOND][=ADVERTISED]`.
struct Part<'a> {
    family: Family,
    label: Option<&'a str>,
    host: &'a str,
    second: Option<&'a str>,
    advertised: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn parse(flag: &'a ListenFlag) -> Result<Self, String> {
        let text = flag.text.as_str();
        let (addr, advertised) = match text.split_once('=') {
            Some((addr, advertised)) => (addr, Some(advertised)),
            None => (text, None),
        };
        let (label, hosts) = match addr.split_once('@') {
            Some((label, hosts)) => (Some(label), hosts),
            None => (None, addr),
        };
        let (host, second) = match hosts.split_once('/') {
            Some((host, second)) => (host, Some(second)),
            None => (hosts, None),
        };
        if label.is_some_and(str::is_empty) {
            return Err(format!("{text}: address label is missing"));
        }
        if advertised.is_some_and(str::is_empty) {
            return Err(format!("{text}: advertised address is missing"));
        }
        if second.is_some() && (label.is_some() || advertised.is_some()) {
            return Err(format!("{text}: bridged addresses take neither a label nor an advertised address"));
        }
        if second.is_none() && host.is_empty() {
            return Err(format!("{text}: address is missing"));
        }
        let family = if flag.ipv6 { Family::V6 } else { Family::V4 };
        Ok(Self { family, label, host, second, advertised })
    }
}

/// The two addresses of bridge mode, by host and family.
struct Bridge<'a> {
    halves: [(&'a str, Family); 2],
}

/// Takes what makes up the bridge out of `parts`: the first `-l` and the first `-6`, if either has a `/`.
fn take_bridge<'a>(parts: &mut Vec<Part<'a>>) -> Result<Option<Bridge<'a>>, String> {
    if parts.iter().all(|part| part.second.is_none()) {
        return Ok(None);
    }
    let first = |family| parts.iter().position(move |part: &Part<'_>| part.family == family);
    let firsts = [first(Family::V4), first(Family::V6)];
    if parts.iter().enumerate().any(|(at, part)| part.second.is_some() && !firsts.contains(&Some(at))) {
        return Err("only the first address of a family can be bridged".into());
    }
    let mut internal = None;
    let mut external = None;
    // The half without a slash joins in only where the bridge still lacks an address.
    let mut used: Vec<usize> =
        firsts.into_iter().flatten().filter(|at| parts[*at].second.is_some()).collect();
    for at in &used {
        let part = &parts[*at];
        fill(&mut internal, part.host, part.family)?;
        fill(&mut external, part.second.unwrap_or_default(), part.family)?;
    }
    if internal.is_none() {
        let joining = firsts.into_iter().flatten().find(|at| {
            parts[*at].second.is_none() && parts[*at].label.is_none() && parts[*at].advertised.is_none()
        });
        if let Some(at) = joining {
            internal = Some((parts[at].host, parts[at].family));
            used.push(at);
        }
    }
    let (Some(internal), Some(external)) = (internal, external) else {
        return Err(
            "incomplete configuration of the bridging mode: exactly two listen addresses required".into()
        );
    };
    used.sort_unstable();
    for at in used.into_iter().rev() {
        parts.remove(at);
    }
    Ok(Some(Bridge { halves: [internal, external] }))
}

fn fill<'a>(half: &mut Option<(&'a str, Family)>, host: &'a str, family: Family) -> Result<(), String> {
    if host.is_empty() {
        return Ok(());
    }
    if half.replace((host, family)).is_some() {
        return Err("bridging mode takes exactly two listen addresses".into());
    }
    Ok(())
}

impl Bridge<'_> {
    fn locals(&self, advertise: Option<&Advertise>, names: bool) -> Result<[LocalAddr; 2], String> {
        let mut advertised = [None, None];
        if let Some(advertise) = advertise {
            let Some(second) = &advertise.second else {
                return Err("two advertised addresses are required for internal and external interfaces in \
                            bridging mode"
                    .into());
            };
            advertised = [Some(advertise.first.as_str().into()), Some(second.as_str().into())];
        }
        let [internal, external] = self.halves;
        let [inside, outside] = advertised;
        Ok([
            LocalAddr { ip: resolve(internal.0, internal.1, names)?, advertised: inside },
            LocalAddr { ip: resolve(external.0, external.1, names)?, advertised: outside },
        ])
    }
}

/// The address of `host` in `family`. `*` is the wildcard; `names`: the name service may be asked.
fn resolve(host: &str, family: Family, names: bool) -> Result<IpAddr, String> {
    match (host, family) {
        ("*", Family::V4) => Ok(Ipv4Addr::UNSPECIFIED.into()),
        ("*", Family::V6) => Ok(Ipv6Addr::UNSPECIFIED.into()),
        _ => hostport::lookup(host, 0, family, names).map(|addr| addr.ip()),
    }
}

/// One address may go without a label: the default, unless the bridge is that already.
fn check_labels(parts: &[Part<'_>], bridged: bool) -> Result<(), String> {
    let plain: Vec<_> = parts.iter().filter(|part| part.label.is_none()).collect();
    if let Some(part) = plain.get(usize::from(!bridged)) {
        return Err(format!("{}: address label is missing", part.host));
    }
    for (at, part) in parts.iter().enumerate() {
        if let Some(label) = part.label
            && parts[..at].iter().any(|earlier| earlier.label == Some(label))
        {
            return Err(format!("{label}: duplicate label"));
        }
    }
    Ok(())
}

const LISTEN_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &str) -> Vec<ListenFlag> {
        let words: Vec<_> = words.split_whitespace().collect();
        words.chunks(2).map(|pair| ListenFlag { ipv6: pair[0] == "-6", text: pair[1].into() }).collect()
    }

    fn run(words: &str) -> Result<Listen, String> {
        listen(&flags(words), None, false)
    }

    fn plain(listen: &Listen) -> Vec<String> {
        let names = listen.addrs.iter().map(|listen| {
            let label = listen.label.as_ref().map(|label| format!("{label}@")).unwrap_or_default();
            let advertised =
                listen.addr.advertised.as_ref().map(|text| format!("={text}")).unwrap_or_default();
            format!("{label}{}{advertised}", listen.addr.ip)
        });
        names.chain(listen.external.iter().map(|external| format!("/{}", external.ip))).collect()
    }

    #[test]
    fn addresses_labels_and_bridges() {
        for (words, expected) in [
            ("", &["0.0.0.0"][..]),
            ("-l *", &["0.0.0.0"]),
            ("-6 *", &["::"]),
            ("-6 ::1", &["::1"]),
            ("-l 127.0.0.1=192.0.2.1", &["127.0.0.1=192.0.2.1"]),
            ("-l 127.0.0.1 -6 six@::1=host.example", &["127.0.0.1", "six@::1=host.example"]),
            ("-l b@127.0.0.2 -l 127.0.0.1 -l c@127.0.0.3", &["127.0.0.1", "b@127.0.0.2", "c@127.0.0.3"]),
            ("-l only@127.0.0.2", &["only@127.0.0.2"]),
            ("-l 127.0.0.1/127.0.0.2", &["127.0.0.1", "/127.0.0.2"]),
            ("-6 ::1/::", &["::1", "/::"]),
            ("-l 127.0.0.1 -6 /::1", &["127.0.0.1", "/::1"]),
            ("-l /127.0.0.1 -6 ::1", &["::1", "/127.0.0.1"]),
            ("-l 127.0.0.1/ -6 /::1", &["127.0.0.1", "/::1"]),
            ("-l * -6 /::", &["0.0.0.0", "/::"]),
            ("-l 127.0.0.1/127.0.0.2 -6 x@::1", &["127.0.0.1", "x@::1", "/127.0.0.2"]),
        ] {
            assert_eq!(plain(&run(words).unwrap()), expected, "{words}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, message) in [
            ("-l 127.0.0.1 -6 ::1", "address label is missing"),
            ("-l 127.0.0.1/127.0.0.2 -6 ::1", "address label is missing"),
            ("-l @127.0.0.1", "address label is missing"),
            ("-l 127.0.0.1 -l a@127.0.0.2 -6 a@::1", "a: duplicate label"),
            ("-l 127.0.0.1/", "incomplete configuration of the bridging mode"),
            ("-l /127.0.0.1", "incomplete configuration of the bridging mode"),
            ("-l /127.0.0.1 -6 /::1", "exactly two listen addresses"),
            ("-l 127.0.0.1/127.0.0.2 -6 ::1/::2", "exactly two listen addresses"),
            ("-l x@127.0.0.1/127.0.0.2", "neither a label nor"),
            ("-l 127.0.0.1 -l 127.0.0.2/127.0.0.3", "only the first address of a family"),
            ("-l 127.0.0.1=", "advertised address is missing"),
            ("-l ::1", "::1"),
            ("-6 127.0.0.1", "127.0.0.1"),
            ("-l host.example", "host.example"),
        ] {
            let error = run(words).unwrap_err();
            assert!(error.contains(message), "{words}: {error}");
        }
        assert!(run(&"-l a@127.0.0.1 ".repeat(17)).unwrap_err().contains("16"));
    }

    #[test]
    fn advertised_addresses_come_in_pairs_in_bridge_mode_only() {
        let one = Advertise { first: "a".into(), second: None };
        let two = Advertise { first: "a".into(), second: Some("b".into()) };
        let bridge = flags("-l 127.0.0.1/127.0.0.2");
        assert!(listen(&bridge, Some(&one), false).unwrap_err().starts_with("two advertised addresses"));
        let both = listen(&bridge, Some(&two), false).unwrap();
        assert_eq!(both.addrs[0].addr.advertised.as_deref(), Some("a"));
        assert_eq!(both.external.unwrap().advertised.as_deref(), Some("b"));
        let alone = listen(&flags("-l 127.0.0.1"), Some(&one), false).unwrap();
        assert!(alone.advertise_unused && alone.addrs[0].addr.advertised.is_none());
    }
}
