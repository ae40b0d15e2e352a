//! What is left of a session when it ends, and the line of CSV that says it (docs/modules.md, `acct_csv`).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::analyzer::{Jitter, Report};
use crate::command::{CallId, Tag};
use crate::time::Wall;

/// The figures of a session that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionEnd {
    /// A number that no other session has, below 2^63.
    pub uid: u64,
    /// The call.
    pub call_id: CallId,
    /// The session's tag.
    pub from_tag: Tag,
    /// When it was created.
    pub setup: Wall,
    /// When it ended.
    pub teardown: Wall,
    /// Where its RTP packets went.
    pub rtp: PipeEnd,
    /// Where its RTCP packets went.
    pub rtcp: PipeEnd,
    /// What the callee sent.
    pub callee: LegEnd,
    /// What the caller sent.
    pub caller: LegEnd,
}

/// Packets of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeEnd {
    /// Sent on.
    pub relayed: u64,
    /// Accepted, and not sent on.
    pub dropped: u64,
}

/// One party of a session that has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LegEnd {
    /// RTP packets accepted.
    pub rtp_packets: u64,
    /// RTCP packets accepted.
    pub rtcp_packets: u64,
    /// When the first RTP packet came.
    pub first_rtp: Option<Wall>,
    /// When the last one came.
    pub last_rtp: Option<Wall>,
    /// What the stream lost on its way.
    pub report: Report,
    /// How evenly it came.
    pub jitter: Jitter,
    /// Where RTP to the party went at last.
    pub rtp_remote: Option<SocketAddr>,
    /// Where RTCP to the party went at last.
    pub rtcp_remote: Option<SocketAddr>,
    /// Whether the party was on hold at last.
    pub on_hold: bool,
    /// How often it was put on hold.
    pub holds: u32,
}

/// Who writes the lines: what all of them have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name of the host.
    pub name: String,
    /// The id of the process.
    pub pid: u32,
}

/// The first line of the file, with its line feed.
pub fn csv_header() -> String {
    COLUMNS.join(",") + "\n"
}

/// Adds the line of a session, with its line feed, to `line`.
///
/// Nothing is quoted, as in the C program, but for a call-id or a tag that would otherwise be read as another
/// number of columns: one with a comma, or with a quotation mark in front (RFC 4180, section 2).
pub fn write_csv(node: &Node, end: &SessionEnd, line: &mut Vec<u8>) {
    let (o, a) = (&end.callee, &end.caller);
    let mut row = Row { line, empty: true };
    row.add(RECORD_VERSION);
    row.text(node.name.as_bytes());
    row.add(node.pid);
    row.add(end.uid);
    row.text(end.call_id.as_bytes());
    row.text(end.from_tag.as_bytes());
    row.time(Some(end.setup));
    row.time(Some(end.teardown));
    for at in [o.first_rtp, o.last_rtp, a.first_rtp, a.last_rtp] {
        row.time(at);
    }
    for count in [a.rtp_packets, o.rtp_packets, end.rtp.relayed, end.rtp.dropped] {
        row.add(count);
    }
    for count in [a.rtcp_packets, o.rtcp_packets, end.rtcp.relayed, end.rtcp.dropped] {
        row.add(count);
    }
    row.report(&o.report);
    row.report(&a.report);
    for jitter in [o.jitter, a.jitter] {
        for figure in [jitter.last, jitter.max, jitter.avg] {
            row.add(format_args!("{figure:.6}"));
        }
    }
    for remote in [o.rtp_remote, a.rtp_remote, o.rtcp_remote, a.rtcp_remote] {
        row.address(remote);
    }
    for leg in [o, a] {
        row.add(if leg.on_hold { 't' } else { 'f' });
    }
    for leg in [o, a] {
        row.add(leg.holds);
    }
    line.push(b'\n');
}

/// A line that grows column by column.
struct Row<'a> {
    line: &'a mut Vec<u8>,
    empty: bool,
}

impl Row<'_> {
    fn text(&mut self, text: &[u8]) {
        if !std::mem::take(&mut self.empty) {
            self.line.push(b',');
        }
        self.line.extend_from_slice(&guarded(text));
    }

    fn add(&mut self, value: impl fmt::Display) {
        self.text(value.to_string().as_bytes());
    }

    fn time(&mut self, at: Option<Wall>) {
        self.add(format_args!("{:.6}", at.map_or(0.0, Wall::seconds)));
    }

    fn report(&mut self, report: &Report) {
        for count in [report.nsent, report.nrcvd, report.ndups, report.nlost, report.perrs] {
            self.add(count);
        }
        match report.ssrc_last {
            Some(ssrc) => self.add(format_args!("0x{ssrc:08X}")),
            None => self.text(b""),
        }
        self.add(report.ssrc_changes);
        self.add(report.pt_last.map_or(-1, i16::from));
    }

    fn address(&mut self, addr: Option<SocketAddr>) {
        match addr.map(|addr| (addr.ip(), addr.port())) {
            Some((IpAddr::V4(ip), port)) => {
                self.add(ip);
                self.add(port);
            }
            Some((IpAddr::V6(ip), port)) => {
                self.add(format_args!("[{ip}]"));
                self.add(port);
            }
            None => {
                self.text(b"");
                self.text(b"");
            }
        }
    }
}

fn guarded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b',') && text.first() != Some(&b'"') {
        return Cow::Borrowed(text);
    }
    let mut quoted = vec![b'"'];
    for &byte in text {
        quoted.extend(std::iter::repeat_n(byte, if byte == b'"' { 2 } else { 1 }));
    }
    quoted.push(b'"');
    Cow::Owned(quoted)
}

const RECORD_VERSION: &str = "1.2";

/// `_o` is the side that the callee sends to, `_a` the one that the caller sends to: the opposite of the letters
/// of recordings.
const COLUMNS: [&str; 54] = [
    "rec_ver",
    "rtpp_node_id",
    "rtpp_pid",
    "sess_uid",
    "call_id",
    "from_tag",
    "setup_ts",
    "teardown_ts",
    "first_rtp_ts_ino",
    "last_rtp_ts_ino",
    "first_rtp_ts_ina",
    "last_rtp_ts_ina",
    "rtp_npkts_ina",
    "rtp_npkts_ino",
    "rtp_nrelayed",
    "rtp_ndropped",
    "rtcp_npkts_ina",
    "rtcp_npkts_ino",
    "rtcp_nrelayed",
    "rtcp_ndropped",
    "rtpa_nsent_ino",
    "rtpa_nrcvd_ino",
    "rtpa_ndups_ino",
    "rtpa_nlost_ino",
    "rtpa_perrs_ino",
    "rtpa_ssrc_last_ino",
    "rtpa_ssrc_cnt_ino",
    "rtpa_pt_last_ino",
    "rtpa_nsent_ina",
    "rtpa_nrcvd_ina",
    "rtpa_ndups_ina",
    "rtpa_nlost_ina",
    "rtpa_perrs_ina",
    "rtpa_ssrc_last_ina",
    "rtpa_ssrc_cnt_ina",
    "rtpa_pt_last_ina",
    "rtpa_jitter_last_ino",
    "rtpa_jitter_max_ino",
    "rtpa_jitter_avg_ino",
    "rtpa_jitter_last_ina",
    "rtpa_jitter_max_ina",
    "rtpa_jitter_avg_ina",
    "rtpp_rtp_rmt_ip_o",
    "rtpp_rtp_rmt_pt_o",
    "rtpp_rtp_rmt_ip_a",
    "rtpp_rtp_rmt_pt_a",
    "rtpp_rtcp_rmt_ip_o",
    "rtpp_rtcp_rmt_pt_o",
    "rtpp_rtcp_rmt_ip_a",
    "rtpp_rtcp_rmt_pt_a",
    "rtpp_hld_sts_o",
    "rtpp_hld_sts_a",
    "rtpp_hld_cnt_o",
    "rtpp_hld_cnt_a",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> Node {
        Node { name: "pbx1".into(), pid: 77 }
    }

    fn end() -> SessionEnd {
        SessionEnd {
            uid: 5,
            call_id: "call-1".into(),
            from_tag: "from;1".into(),
            setup: Wall(1_700_000_000_000_000_000),
            teardown: Wall(1_700_000_061_250_000_400),
            rtp: PipeEnd { relayed: 9, dropped: 1 },
            rtcp: PipeEnd { relayed: 2, dropped: 3 },
            callee: LegEnd::default(),
            caller: LegEnd::default(),
        }
    }

    fn line(end: &SessionEnd) -> String {
        let mut line = Vec::new();
        write_csv(&node(), end, &mut line);
        String::from_utf8(line).unwrap()
    }

    /// The value of a column, of a line without quotation.
    fn column<'a>(line: &'a str, name: &str) -> &'a str {
        let header = csv_header();
        let at = header.trim_end().split(',').position(|column| column == name).unwrap();
        line.trim_end().split(',').nth(at).unwrap()
    }

    #[test]
    fn what_is_not_known_has_its_own_words() {
        assert_eq!(
            line(&end()),
            "1.2,pbx1,77,5,call-1,from;1,1700000000.000000,1700000061.250000,\
             0.000000,0.000000,0.000000,0.000000,0,0,9,1,0,0,2,3,\
             0,0,0,0,0,,0,-1,0,0,0,0,0,,0,-1,\
             0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,,,,,,,,,f,f,0,0\n"
        );
    }

    #[test]
    fn each_figure_stands_under_its_name() {
        let leg = |base: u32, ip: &str| LegEnd {
            rtp_packets: u64::from(base + 1),
            rtcp_packets: u64::from(base + 2),
            first_rtp: Some(Wall(u64::from(base + 3) * 1_000_000_000)),
            last_rtp: Some(Wall(u64::from(base + 4) * 1_000_000_000)),
            report: Report {
                nsent: u64::from(base + 5),
                nrcvd: u64::from(base + 6),
                ndups: u64::from(base + 7),
                nlost: u64::MAX - u64::from(base),
                perrs: u64::from(base + 8),
                ssrc_last: Some(0xabc0_0000 + base),
                ssrc_changes: base + 9,
                pt_last: Some(8),
            },
            jitter: Jitter {
                last: f64::from(base) + 0.25,
                max: f64::from(base) + 0.5,
                avg: f64::from(base) + 0.75,
            },
            rtp_remote: Some(format!("{ip}:4000").parse().unwrap()),
            rtcp_remote: Some(format!("{ip}:4001").parse().unwrap()),
            on_hold: base == 100,
            holds: base + 10,
        };
        let line =
            line(&SessionEnd { callee: leg(100, "192.0.2.1"), caller: leg(200, "[2001:db8::1]"), ..end() });
        for (name, value) in [
            ("first_rtp_ts_ino", "103.000000"),
            ("last_rtp_ts_ino", "104.000000"),
            ("first_rtp_ts_ina", "203.000000"),
            ("last_rtp_ts_ina", "204.000000"),
            ("rtp_npkts_ina", "201"),
            ("rtp_npkts_ino", "101"),
            ("rtp_nrelayed", "9"),
            ("rtp_ndropped", "1"),
            ("rtcp_npkts_ina", "202"),
            ("rtcp_npkts_ino", "102"),
            ("rtcp_nrelayed", "2"),
            ("rtcp_ndropped", "3"),
            ("rtpa_nsent_ino", "105"),
            ("rtpa_nrcvd_ino", "106"),
            ("rtpa_ndups_ino", "107"),
            ("rtpa_nlost_ino", "18446744073709551515"),
            ("rtpa_perrs_ino", "108"),
            ("rtpa_ssrc_last_ino", "0xABC00064"),
            ("rtpa_ssrc_cnt_ino", "109"),
            ("rtpa_pt_last_ino", "8"),
            ("rtpa_nsent_ina", "205"),
            ("rtpa_pt_last_ina", "8"),
            ("rtpa_jitter_last_ino", "100.250000"),
            ("rtpa_jitter_max_ino", "100.500000"),
            ("rtpa_jitter_avg_ina", "200.750000"),
            ("rtpp_rtp_rmt_ip_o", "192.0.2.1"),
            ("rtpp_rtp_rmt_pt_o", "4000"),
            ("rtpp_rtp_rmt_ip_a", "[2001:db8::1]"),
            ("rtpp_rtcp_rmt_pt_o", "4001"),
            ("rtpp_rtcp_rmt_ip_a", "[2001:db8::1]"),
            ("rtpp_rtcp_rmt_pt_a", "4001"),
            ("rtpp_hld_sts_o", "t"),
            ("rtpp_hld_sts_a", "f"),
            ("rtpp_hld_cnt_o", "110"),
            ("rtpp_hld_cnt_a", "210"),
        ] {
            assert_eq!(column(&line, name), value, "{name}");
        }
    }

    #[test]
    fn what_would_shift_columns_is_quoted() {
        let named = |call_id: &str| line(&SessionEnd { call_id: call_id.into(), ..end() });
        for plain in ["a;b@[2001:db8::1]", "a\"b@x", "it's"] {
            assert!(named(plain).contains(&format!(",5,{plain},from;1,")), "{plain}");
        }
        assert!(named("a,b").contains(",5,\"a,b\",from;1,"));
        assert!(named("\"a\"").contains(",5,\"\"\"a\"\"\",from;1,"));
    }

    proptest! {
        /// Read with quotation, each line has its columns, and the names in it are those that were written.
        #[test]
        fn a_line_is_read_as_what_it_says(call_id in "[^ \t\r\n\0]{1,20}", tag in "[,\"a;]{1,8}") {
            let line = line(&SessionEnd { call_id: (&*call_id).into(), from_tag: (&*tag).into(), ..end() });
            let columns = read(line.trim_end_matches('\n'));
            prop_assert_eq!(columns.len(), COLUMNS.len());
            prop_assert_eq!(&columns[4], &call_id);
            prop_assert_eq!(&columns[5], &tag);
        }
    }

    /// Columns as RFC 4180 reads them.
    fn read(line: &str) -> Vec<String> {
        let mut columns = vec![String::new()];
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let column = columns.last_mut().unwrap();
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_some() => column.push('"'),
                '"' if quoted => quoted = false,
                '"' if column.is_empty() => quoted = true,
                ',' if !quoted => columns.push(String::new()),
                _ => column.push(c),
            }
        }
        columns
    }
}
