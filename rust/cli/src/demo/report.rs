//! What happened, as tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::phone::Heard;

/// One leg of the call, from every side that saw it.
#[derive(Debug)]
pub(super) struct LegReport {
    /// `caller` or `callee`.
    pub(super) name: &'static str,
    /// The phone's RTP port.
    pub(super) port: u16,
    /// What its phone counted.
    pub(super) heard: Heard,
    /// RTP packets that the other phone sent to it.
    pub(super) expected: u64,
    /// Where the relay found the phone.
    pub(super) latched: Option<String>,
    /// RTP packets of this phone in the recording.
    pub(super) recorded_rtp: u64,
    /// RTCP packets of this phone in the recording.
    pub(super) recorded_rtcp: u64,
}

impl LegReport {
    /// Packets of the other phone that did not arrive.
    fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.heard.rtp_received)
    }
}

/// The legs side by side.
pub(super) fn legs(legs: &[LegReport; 2]) -> Table {
    let mut table = table(&["", legs[0].name, legs[1].name]);
    let mut row = |name: &str, value: &dyn Fn(&LegReport) -> String| {
        table.add_row([name.to_owned(), value(&legs[0]), value(&legs[1])]);
    };
    row("phone", &|leg| format!("127.0.0.1:{}", leg.port));
    row("latched by the relay", &|leg| leg.latched.clone().unwrap_or_else(|| "-".into()));
    row("SSRC", &|leg| format!("{:08x}", leg.heard.ssrc));
    row("SSRC heard", &|leg| leg.heard.peer_ssrc.map_or("-".into(), |ssrc| format!("{ssrc:08x}")));
    row("RTP sent", &|leg| leg.heard.rtp_sent.to_string());
    row("RTP received", &|leg| leg.heard.rtp_received.to_string());
    row("RTP lost on the way here", &|leg| leg.lost().to_string());
    row("jitter", &|leg| format!("{:.2} ms", leg.heard.jitter_ms));
    row("RTCP sent / received", &|leg| format!("{} / {}", leg.heard.rtcp_sent, leg.heard.rtcp_received));
    row("RTP recorded", &|leg| leg.recorded_rtp.to_string());
    row("RTCP recorded", &|leg| leg.recorded_rtcp.to_string());
    align(&mut table);
    table
}

/// The relay's counters as `Q` gives them with names: `name=value name=value …`.
pub(super) fn counters(reply: &str) -> Table {
    let mut table = table(&["counter of the relay", "value"]);
    for (name, value) in reply.split_whitespace().filter_map(|word| word.split_once('=')) {
        table.add_row([name, value]);
    }
    align(&mut table);
    table
}

/// What went wrong, in words; empty if every packet arrived and is in the recording.
pub(super) fn faults(legs: &[LegReport; 2]) -> Vec<String> {
    let mut faults = Vec::new();
    for leg in legs {
        if leg.lost() > 0 {
            faults.push(format!(
                "{} of {} RTP packets did not reach the {}",
                leg.lost(),
                leg.expected,
                leg.name
            ));
        }
        let recorded =
            [("RTP", leg.heard.rtp_sent, leg.recorded_rtp), ("RTCP", leg.heard.rtcp_sent, leg.recorded_rtcp)];
        for (kind, sent, recorded) in recorded {
            if sent != recorded {
                faults.push(format!(
                    "the {} sent {sent} {kind} packets, the recording has {recorded}",
                    leg.name
                ));
            }
        }
    }
    let [caller, callee] = legs;
    for (from, to) in [(caller, callee), (callee, caller)] {
        if to.heard.rtcp_received < from.heard.rtcp_sent {
            let missing = from.heard.rtcp_sent - to.heard.rtcp_received;
            faults.push(format!("{missing} RTCP packets of the {} did not arrive", from.name));
        }
        if to.heard.peer_ssrc != Some(from.heard.ssrc) {
            faults.push(format!("the {} did not hear the SSRC of the {}", to.name, from.name));
        }
    }
    faults
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(name: &'static str, ssrc: u32, peer: u32) -> LegReport {
        let heard = Heard {
            ssrc,
            rtp_sent: 100,
            rtcp_sent: 1,
            rtp_received: 100,
            rtcp_received: 1,
            peer_ssrc: Some(peer),
            jitter_ms: 0.25,
        };
        let latched = Some("127.0.0.1:40000".into());
        LegReport { name, port: 40000, heard, expected: 100, latched, recorded_rtp: 100, recorded_rtcp: 1 }
    }

    #[test]
    fn a_good_call_has_no_faults() {
        let both = [leg("caller", 1, 2), leg("callee", 2, 1)];
        assert_eq!(faults(&both), Vec::<String>::new());
        let text = legs(&both).to_string();
        assert!(text.contains("00000001") && text.contains("0.25 ms"), "{text}");
    }

    #[test]
    fn every_fault_is_named() {
        let mut both = [leg("caller", 1, 2), leg("callee", 2, 1)];
        both[0].heard.rtp_received = 99;
        both[1].recorded_rtp = 98;
        both[1].heard.rtcp_received = 0;
        both[0].heard.peer_ssrc = None;
        assert_eq!(
            faults(&both),
            [
                "1 of 100 RTP packets did not reach the caller",
                "the callee sent 100 RTP packets, the recording has 98",
                "1 RTCP packets of the caller did not arrive",
                "the caller did not hear the SSRC of the callee",
            ]
        );
    }

    #[test]
    fn counters_come_from_the_reply() {
        let text = counters("ttl=58 nrelayed=200\n").to_string();
        assert!(text.contains("nrelayed") && text.contains("200"), "{text}");
    }
}
