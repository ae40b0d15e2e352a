//! RTCP reports as JSON, in the words that capture servers know.

use std::fmt::{self, Write};

use crate::rtcp::{HEADER_LEN, RtcpError, split_whole};

/// Writes the sender and receiver reports of a compound packet to `json`, one object behind the other.
///
/// Other packets leave nothing, so that there may be no object at all. Padding is not looked at. `json` is as
/// before after an error.
///
/// # Errors
///
/// When a version is not 2, and when a packet does not fit into the datagram or reports not into their packet.
pub fn write_json(rtcp: &[u8], json: &mut String) -> Result<(), ReportError> {
    let start = json.len();
    let written = write_reports(rtcp, json);
    if written.is_err() {
        json.truncate(start);
    }
    written
}

/// Why a datagram has no reports that could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It is not RTCP.
    #[error(transparent)]
    Rtcp(#[from] RtcpError),
    /// Reports reach beyond their packet.
    #[error("RTCP packet of type {kind} and {packet_len} bytes for {reports} reports")]
    Reports {
        /// The type of the packet.
        kind: u8,
        /// How many reports it announces.
        reports: u8,
        /// Its length, in bytes.
        packet_len: usize,
    },
}

fn write_reports(mut rest: &[u8], json: &mut String) -> Result<(), ReportError> {
    loop {
        let (packet, behind) = split_whole(rest)?;
        if let Some(report) = Report::read(packet)? {
            // A `String` takes everything.
            let _ = write!(json, "{report}");
        }
        if behind.is_empty() {
            return Ok(());
        }
        rest = behind;
    }
}

/// A sender or receiver report (RFC 3550, section 6.4).
struct Report<'a> {
    kind: u8,
    count: u8,
    ssrc: u32,
    /// NTP time in seconds and fraction, RTP time, packets, octets.
    sender: Option<[u32; 5]>,
    blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> Report<'a> {
    /// The report in a whole packet; `None` if it is of another type.
    fn read(packet: &'a [u8]) -> Result<Option<Self>, ReportError> {
        let (kind, count) = (packet[1], packet[0] & COUNT);
        if !matches!(kind, SENDER_REPORT | RECEIVER_REPORT) {
            return Ok(None);
        }
        let error = ReportError::Reports { kind, reports: count, packet_len: packet.len() };
        let (ssrc, mut rest) = split_word(&packet[HEADER_LEN..]).ok_or(error)?;
        let mut sender = None;
        if kind == SENDER_REPORT {
            let mut words = [0; 5];
            for word in &mut words {
                (*word, rest) = split_word(rest).ok_or(error)?;
            }
            sender = Some(words);
        }
        let blocks = rest.as_chunks().0.get(..usize::from(count)).ok_or(error)?;
        Ok(Some(Self { kind, count, ssrc, sender, blocks }))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\n \"ssrc\": {},\n", self.ssrc)?;
        if let Some([seconds, fraction, timestamp, packets, octets]) = self.sender {
            write!(
                f,
                " \"sender_information\": {{\n  \"ntp_timestamp_sec\": {seconds},\n  \"ntp_timestamp_usec\": {fraction},\n  \
                 \"rtp_timestamp\": {timestamp},\n  \"packets\": {packets},\n  \"octets\": {octets}\n }},\n"
            )?;
        }
        writeln!(f, " \"type\": {},", self.kind)?;
        for (at, block) in self.blocks.iter().enumerate() {
            f.write_str(if at == 0 { " \"report_blocks\": [\n" } else { "  ,\n" })?;
            write_block(f, block)?;
        }
        if !self.blocks.is_empty() {
            f.write_str(" ],\n")?;
        }
        write!(f, " \"report_count\": {}\n}}", self.count)
    }
}

fn write_block(f: &mut fmt::Formatter<'_>, block: &[u8; BLOCK_LEN]) -> fmt::Result {
    let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // Signed, of 24 bits: below zero after more duplicates than losses.
    let lost = (word(4) << 8) as i32 >> 8;
    let facts = [
        ("source_ssrc", i64::from(word(0))),
        ("fraction_lost", i64::from(block[4])),
        ("packets_lost", i64::from(lost)),
        ("highest_seq_no", i64::from(word(8))),
        ("ia_jitter", i64::from(word(12))),
        ("lsr", i64::from(word(16))),
        ("dlsr", i64::from(word(20))),
    ];
    f.write_str("  {\n")?;
    for (at, (name, value)) in facts.into_iter().enumerate() {
        let comma = if at + 1 < facts.len() { "," } else { "" };
        writeln!(f, "   \"{name}\": {value}{comma}")?;
    }
    f.write_str("  }\n")
}

fn split_word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u32::from_be_bytes(*word), rest))
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// The bits of the first byte that count reports.
const COUNT: u8 = 0x1f;
/// A report about one source, in bytes.
const BLOCK_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(rtcp: &[u8]) -> Result<String, ReportError> {
        let mut json = String::new();
        write_json(rtcp, &mut json).map(|()| json)
    }

    /// A packet of the type with these words behind its header.
    fn packet(kind: u8, count: u8, words: &[u32]) -> Vec<u8> {
        let mut packet = vec![0x80 | count, kind];
        packet.extend((words.len() as u16).to_be_bytes());
        packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        packet
    }

    const BLOCK: [u32; 6] = [0xffff_ffff, 0x40_00_00_07, 0x0001_0203, 30, 4_000_000_000, 65_536];

    #[test]
    fn a_sender_report() {
        let mut words = vec![0xdead_beef, 3_900_000_000, 2_147_483_648, 160, 7, 1120];
        words.extend(BLOCK);
        let expected = r#"{
 "ssrc": 3735928559,
 "sender_information": {
  "ntp_timestamp_sec": 3900000000,
  "ntp_timestamp_usec": 2147483648,
  "rtp_timestamp": 160,
  "packets": 7,
  "octets": 1120
 },
 "type": 200,
 "report_blocks": [
  {
   "source_ssrc": 4294967295,
   "fraction_lost": 64,
   "packets_lost": 7,
   "highest_seq_no": 66051,
   "ia_jitter": 30,
   "lsr": 4000000000,
   "dlsr": 65536
  }
 ],
 "report_count": 1
}"#;
        assert_eq!(json(&packet(200, 1, &words)).unwrap(), expected);
    }

    #[test]
    fn a_receiver_report_about_two() {
        let words = [&[1_u32][..], &[2, 0xff_ff_ff_ff, 0, 0, 0, 0], &[3, 0, 0, 0, 0, 0]].concat();
        let expected = r#"{
 "ssrc": 1,
 "type": 201,
 "report_blocks": [
  {
   "source_ssrc": 2,
   "fraction_lost": 255,
   "packets_lost": -1,
   "highest_seq_no": 0,
   "ia_jitter": 0,
   "lsr": 0,
   "dlsr": 0
  }
  ,
  {
   "source_ssrc": 3,
   "fraction_lost": 0,
   "packets_lost": 0,
   "highest_seq_no": 0,
   "ia_jitter": 0,
   "lsr": 0,
   "dlsr": 0
  }
 ],
 "report_count": 2
}"#;
        assert_eq!(json(&packet(201, 2, &words)).unwrap(), expected);
    }

    #[test]
    fn a_report_about_nobody() {
        let empty = "{\n \"ssrc\": 9,\n \"type\": 201,\n \"report_count\": 0\n}";
        assert_eq!(json(&packet(201, 0, &[9])).unwrap(), empty);
        // What follows the blocks is of a profile.
        assert_eq!(json(&packet(201, 0, &[9, 1, 2, 3])).unwrap(), empty);
    }

    #[test]
    fn others_leave_nothing() {
        let description = packet(202, 1, &[9, 0x0101_6100]);
        let bye = packet(203, 1, &[9]);
        assert_eq!(json(&[description.clone(), bye.clone()].concat()).unwrap(), "");
        assert_eq!(json(&packet(77, 31, &[])).unwrap(), "");
        let report = packet(201, 0, &[9]);
        let compound = [description, report.clone(), bye, report.clone()].concat();
        assert_eq!(json(&compound).unwrap(), json(&report).unwrap().repeat(2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(json(b""), Err(RtcpError::Short { len: 0 }.into()));
        assert_eq!(json(&[0x40, 201, 0, 0]), Err(RtcpError::Version(1).into()));
        let report = packet(201, 0, &[9]);
        assert_eq!(json(&report[..7]), Err(RtcpError::Truncated { packet_len: 8, len: 7 }.into()));
        assert_eq!(json(&[&report[..], &[0x80]].concat()), Err(RtcpError::Short { len: 1 }.into()));
        let reports = |kind, reports, packet_len| Err(ReportError::Reports { kind, reports, packet_len });
        assert_eq!(json(&packet(201, 0, &[])), reports(201, 0, 4));
        assert_eq!(json(&packet(201, 1, &[1, 2, 3, 4, 5, 6])), reports(201, 1, 28));
        assert_eq!(json(&packet(200, 0, &[1, 2, 3, 4, 5])), reports(200, 0, 24));
    }

    #[test]
    fn an_error_leaves_what_was_there() {
        let mut json = "before".to_owned();
        let bad = [packet(201, 0, &[9]), vec![0]].concat();
        assert!(write_json(&bad, &mut json).is_err());
        assert_eq!(json, "before");
    }

    proptest! {
        #[test]
        fn every_object_is_json(
            packets in prop::collection::vec(
                (198..=204_u8, 0..4_u8, prop::collection::vec(any::<u32>(), 0..32)), 0..4,
            ),
            cut in prop_oneof![4 => Just(0), 1 => 0..9_usize],
        ) {
            let mut rtcp: Vec<u8> =
                packets.iter().flat_map(|(kind, count, words)| packet(*kind, *count, words)).collect();
            rtcp.truncate(rtcp.len().saturating_sub(cut));
            if let Ok(text) = json(&rtcp) {
                let objects: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&text)
                    .into_iter()
                    .collect::<Result<_, _>>()
                    .expect("objects");
                let reports = packets.iter().filter(|(kind, ..)| matches!(kind, 200 | 201));
                prop_assert!(objects.len() <= reports.count());
                for object in objects {
                    let blocks = object.get("report_blocks").map_or(0, |blocks| blocks.as_array().unwrap().len());
                    prop_assert_eq!(object["report_count"].as_u64(), Some(blocks as u64));
                    prop_assert_eq!(object.get("sender_information").is_some(), object["type"] == 200);
                }
            }
        }

        #[test]
        fn no_bytes_upset_it(rtcp in prop::collection::vec(prop_oneof![Just(0x81), Just(200), 0..4_u8, any::<u8>()], 0..120)) {
            let _ = json(&rtcp);
        }
    }
}
