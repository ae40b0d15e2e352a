//! The protocol in a few words: what `help` says, and what figures mean (docs/protocol.md).

use std::fmt::Write;

use rtpproxy_core::command::ErrorCode;

/// A command of the protocol.
#[derive(Debug)]
pub(super) struct Command {
    /// The letter, or letters.
    pub(super) name: &'static str,
    /// The words behind it.
    pub(super) words: &'static str,
    /// What it does.
    pub(super) does: &'static str,
    /// What may be glued to the letter, each with what it means.
    pub(super) modifiers: &'static [(&'static str, &'static str)],
}

/// Every command.
pub(super) const COMMANDS: &[Command] = &[
    Command { name: "V", words: "", does: "tells the protocol version", modifiers: &[] },
    Command { name: "VF", words: "number", does: "tells whether a capability is there", modifiers: &[] },
    Command {
        name: "U",
        words: "callid addr port from_tag [to_tag] [notify_socket notify_tag]",
        does: "creates or updates a session",
        modifiers: OFFER,
    },
    Command {
        name: "L",
        words: "callid addr port from_tag [to_tag]",
        does: "adds or updates the other party",
        modifiers: OFFER,
    },
    Command {
        name: "D",
        words: "callid from_tag [to_tag]",
        does: "deletes",
        modifiers: &[("w", "takes back a weak reference")],
    },
    Command {
        name: "R",
        words: "callid from_tag [to_tag]",
        does: "records",
        modifiers: &[("s", "one file for both parties, with -P in the scope stream")],
    },
    Command {
        name: "N",
        words: "callid from_tag [to_tag]",
        does: "stops recording",
        modifiers: &[("a", "of both parties, in the scope stream")],
    },
    Command {
        name: "P",
        words: "callid prompt codecs from_tag [to_tag]",
        does: "plays a prompt",
        modifiers: &[("number", "how often; -1 until it is stopped, 0 not at all")],
    },
    Command { name: "S", words: "callid from_tag [to_tag]", does: "stops the prompt", modifiers: &[] },
    Command {
        name: "Q",
        words: "callid from_tag [to_tag [stat …]]",
        does: "tells the figures of a session",
        modifiers: &[("v", "puts name= before each")],
    },
    Command {
        name: "I",
        words: "",
        does: "tells the figures of the relay",
        modifiers: &[("l", "one more line, the load"), ("b", "changes nothing")],
    },
    Command {
        name: "G",
        words: "[counter …]",
        does: "tells counters by name",
        modifiers: &[("v", "puts name= before each")],
    },
    Command { name: "X", words: "", does: "deletes all sessions", modifiers: &[] },
    Command {
        name: "C",
        words: "callid target from_tag [to_tag]",
        does: "copies what a party sends",
        modifiers: &[
            ("p", "answers PORT ADDR, where datagrams to udp:HOST:PORT come from"),
            ("s", "one file for both parties, with -P in the scope stream"),
        ],
    },
    Command {
        name: "?uncopy",
        words: "callid target from_tag [to_tag]",
        does: "ends one of these copies",
        modifiers: &[],
    },
    Command { name: "?recordings", words: "[number]", does: "lists recordings", modifiers: &[] },
];

/// What may be behind `&&`.
pub(super) const SUB_COMMANDS: &[(&str, &str)] = &[
    ("D[w]", "deletes this session (U, L, Q)"),
    ("S[r] ttl=N", "the session times out after N seconds without media (U, L, Q)"),
    ("S[r] tos=N", "the TOS byte of media (U, L, Q)"),
    ("L[mods] addr port", "the L of this call (U with a to-tag)"),
    ("C callid from_tag to_tag", "forks that other session into this one (U with a to-tag)"),
    ("MID:INSTANCE arguments", "is for a module; M3:1 tells key presses (U, L, Q)"),
];

/// The figures of `Q`.
pub(super) const FIGURES: &[(&str, &str)] = &[
    ("ttl", "seconds left until the session times out"),
    ("npkts_ina", "RTP packets accepted from that party"),
    ("npkts_ino", "RTP packets accepted from the other one"),
    ("nrelayed", "RTP packets relayed, both directions"),
    ("ndropped", "RTP packets dropped, both directions"),
    ("longest_ipi", "the longest time between two packets, in seconds"),
    ("rtpa_nsent", "packets the party sent, by its sequence numbers"),
    ("rtpa_nrcvd", "of these received"),
    ("rtpa_ndups", "of these received again"),
    ("rtpa_nlost", "of these lost"),
    ("rtpa_perrs", "datagrams on the RTP port that are not RTP"),
    ("rtpa_jlast", "jitter now, in units of the RTP clock"),
    ("rtpa_jmax", "the highest jitter"),
    ("rtpa_javg", "the mean jitter"),
];

/// The counters of `G`.
pub(super) const COUNTERS: &[(&str, &str)] = &[
    ("nsess_created", "sessions created"),
    ("nsess_destroyed", "sessions gone"),
    ("nsess_timeout", "sessions gone by timeout"),
    ("nsess_complete", "sessions that got both parties"),
    ("nsess_nortp", "complete sessions that ended with RTP from neither party"),
    ("nsess_owrtp", "complete sessions that ended with RTP from one party only"),
    ("nsess_nortcp", "complete sessions that ended with RTCP from neither party"),
    ("nsess_owrtcp", "complete sessions that ended with RTCP from one party only"),
    ("nplrs_created", "prompts begun"),
    ("nplrs_destroyed", "prompts ended"),
    ("npkts_rcvd", "datagrams received on complete sessions"),
    ("npkts_played", "packets of prompts"),
    ("npkts_relayed", "datagrams relayed"),
    ("npkts_resizer_in", "RTP packets that resizers took"),
    ("npkts_resizer_out", "RTP packets that resizers made"),
    ("npkts_resizer_discard", "RTP packets that resizers threw away"),
    ("npkts_discard", "datagrams dropped, refused, or too early"),
    ("total_duration", "seconds that ended sessions lasted, summed"),
    ("ncmds_rcvd", "commands received"),
    ("ncmds_rcvd_ndups", "datagrams that were repetitions"),
    ("ncmds_succd", "commands that succeeded"),
    ("ncmds_errs", "commands that failed"),
    ("ncmds_repld", "commands that were answered"),
    ("rtpa_nsent", "packets that parties sent, over ended sessions"),
    ("rtpa_nrcvd", "of these received"),
    ("rtpa_ndups", "of these received again"),
    ("rtpa_nlost", "of these lost"),
    ("rtpa_perrs", "datagrams on RTP ports that are not RTP"),
    ("pps_in", "datagrams received a second, over the last second"),
];

/// Finds a command by its name, in any case.
pub(super) fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.eq_ignore_ascii_case(name))
}

/// What `table` says of `name`.
pub(super) fn meaning(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}

/// What `help` and `help TOPIC` say: of a command, an error code, a figure or a counter.
pub(super) fn help(topic: &str) -> String {
    if topic.is_empty() {
        return overview();
    }
    if let Some(command) = command(topic) {
        return details(command);
    }
    if topic == "&&" {
        return list("Sub-commands, behind a word &&:\n", SUB_COMMANDS);
    }
    if let Some(code) = topic.strip_prefix(['E', 'e']).and_then(|number| number.parse().ok()) {
        let code = ErrorCode(code);
        return format!("{code}: {}\n", code.text());
    }
    let found = [("figure of Q", FIGURES), ("counter of G", COUNTERS)].map(|(kind, table)| {
        meaning(table, topic).map(|meaning| format!("{topic}, {kind}: {meaning}\n")).unwrap_or_default()
    });
    let found = found.concat();
    if found.is_empty() { format!("nothing is known of {topic}; help lists the commands\n") } else { found }
}

fn overview() -> String {
    let mut text = String::new();
    let own = [
        ("recordings", "lists recordings: those that run, and the last that ended"),
        ("help WORD", "says more: of a command, && (sub-commands), an error code, a counter"),
        ("quit", "ends, as Ctrl-D does"),
    ];
    for (name, does) in COMMANDS.iter().map(|command| (command.name, command.does)).chain(own) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:11}{does}");
    }
    text
}

fn details(command: &Command) -> String {
    let Command { name, words, does, modifiers } = command;
    let glued = if modifiers.is_empty() { "" } else { "[modifiers]" };
    let mut text = format!("{}\n  {does}\n", format!("{name}{glued} {words}").trim_end());
    if !modifiers.is_empty() {
        text += &list("Modifiers:\n", modifiers);
    }
    match *name {
        "U" | "L" => text += "Sub-commands: see help &&\n",
        "Q" => text += &list("Figures:\n", FIGURES),
        "G" => text += &list("Counters:\n", COUNTERS),
        _ => {}
    }
    text
}

fn list(title: &str, entries: &[(&str, &str)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    let mut text = title.to_owned();
    for (name, meaning) in entries {
        let _ = writeln!(text, "  {name:width$}{meaning}");
    }
    text
}

/// The modifiers of `U` and `L`.
const OFFER: &[(&str, &str)] = &[
    ("a", "the party is asymmetric"),
    ("s", "the party is symmetric"),
    ("e", "use the external address (bridge mode)"),
    ("i", "use the internal address (bridge mode)"),
    ("6", "addr is IPv6"),
    ("w", "weak reference"),
    ("cLIST", "payload types the party announced: digits and commas"),
    ("lA", "the local address: 192.0.2.1, [2001:db8::1] or {label}"),
    ("rA", "the local address that packets to A leave from"),
    ("n", "open new ports for this side"),
    ("zN", "make packets of N milliseconds, 1 to 999, of what the party sends"),
];

#[cfg(test)]
mod tests {
    use rtpproxy_core::command::QUERY_FIGURES;
    use rtpproxy_core::stats;

    use super::*;

    const PROTOCOL: &str = include_str!("../../../../docs/protocol.md");

    #[test]
    fn commands_are_told_as_the_manual_does() {
        let rows: Vec<String> = COMMANDS
            .iter()
            .map(|Command { name, words, does, .. }| {
                format!("| `{name}` | {} | {does} |", if words.is_empty() { "–" } else { words })
            })
            .collect();
        let table =
            PROTOCOL.split("## Commands\n").nth(1).unwrap().trim_start().split("\n\n").next().unwrap();
        assert_eq!(table.lines().skip(2).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn modifiers_are_those_of_the_manual() {
        let table = PROTOCOL
            .split("## Modifiers of U and L\n")
            .nth(1)
            .unwrap()
            .trim_start()
            .split("\n\n")
            .next()
            .unwrap();
        let names: String = table
            .lines()
            .skip(2)
            .map(|row| row.split('|').nth(1).unwrap().replace(['`', ' '], "") + ",")
            .collect();
        let known: String = OFFER.iter().map(|(name, _)| format!("{name},")).collect();
        assert_eq!(names, known);
    }

    #[test]
    fn figures_are_those_of_the_relay() {
        let names = |table: &[(&'static str, &str)]| table.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(FIGURES), QUERY_FIGURES);
        assert_eq!(names(COUNTERS), stats::COUNTERS);
    }

    #[test]
    fn help_knows_commands_errors_and_counters() {
        assert!(help("").contains("U          creates or updates a session\n"));
        assert!(help("u").starts_with("U[modifiers] callid addr"));
        assert!(help("V").starts_with("V\n"));
        assert!(help("G").contains("pps_in"));
        assert!(help("&&").contains("S[r] ttl=N"));
        assert_eq!(help("E50"), "E50: session or stream not found\n");
        assert_eq!(help("rtpa_nlost").lines().count(), 2);
        assert!(help("nonsense").starts_with("nothing is known of nonsense"));
    }
}
