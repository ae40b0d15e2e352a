//! What `VF` can be asked about.

/// The capabilities by the number `VF` knows them by, oldest first, each with what it means.
pub const CAPABILITIES: &[(&str, &str)] = &[
    ("20040107", "The basic commands"),
    ("20050322", "Several media streams in a call, and music on hold"),
    ("20060704", "VF itself: asking for one capability"),
    ("20071116", "Changing the length of RTP packets on the way"),
    ("20071218", "Sending a copy of a stream to a file or to a UDP address"),
    ("20080403", "The statistics of one session"),
    ("20081102", "Codec lists that later prompts are chosen by"),
    (NOTIFY_CAPABILITY, "Telling a listener about a session that timed out"),
    ("20090810", "Choosing the local addresses of a session, for bridging networks"),
    ("20140323", "Reporting the load"),
    ("20140617", "Counting the length of a call from its connect"),
    ("20141004", "Reading global counters by name"),
    ("20150330", "Moving one side of a session to a new port"),
    ("20150420", "Figures of the stream analysis, and statistics of a session by name"),
    ("20150617", "Notifying the address that a command came from"),
    ("20191015", "Sub-commands behind a command"),
    ("20200226", "Stopping a recording while the session goes on"),
    ("20230205", "The number of lost packets, and keeping DTMF events from being relayed"),
    ("20230314", "Deleting a session together with the query of its statistics"),
    ("20230424", "The longest gap between packets, and jitter"),
    ("20250523", "Reporting the ports that a UDP copy is sent from"),
    ("20251015", "Setting timeout and TOS of a session"),
    ("20260306", "Labels for local addresses"),
    ("20260308", "Creating and completing a session with one command"),
    ("20260309", "Forking a session into another one"),
];

/// The capability that is only there if a notification target is configured.
pub const NOTIFY_CAPABILITY: &str = "20081224";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dates_in_order() {
        assert_eq!(CAPABILITIES.len(), 25);
        assert!(CAPABILITIES.is_sorted_by(|earlier, later| earlier.0 < later.0));
        for (number, description) in CAPABILITIES {
            assert!(number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit()), "{number}");
            assert!(!description.is_empty());
        }
    }
}
