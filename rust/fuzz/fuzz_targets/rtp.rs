//! No sequence of datagrams upsets the reading of RTP and RTCP, the analysis of a stream, or the watch over key
//! presses.
//!
//! The input is a row of datagrams, each behind two bytes of its length and two of the milliseconds since
//! the one before.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::analyzer::Analyzer;
use rtpproxy_core::dtmf::KeyCatcher;
use rtpproxy_core::rtcp::{RtcpView, is_rtcp};
use rtpproxy_core::rtcp_json::write_json;
use rtpproxy_core::rtp::RtpView;
use rtpproxy_core::time::{Mono, Wall};

fuzz_target!(|input: &[u8]| {
    let mut analyzer = Analyzer::new();
    let mut catcher = KeyCatcher::default();
    let mut elapsed = Mono(0);
    let mut rest = input;
    while let Some((&[len_high, len_low, pause_high, pause_low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([len_high, len_low])).min(behind.len());
        let (datagram, behind) = behind.split_at(len);
        rest = behind;
        elapsed = elapsed + Duration::from_millis(u16::from_be_bytes([pause_high, pause_low]).into());
        check_rtcp(datagram);
        if let Some(press) = catcher.packet(datagram) {
            assert!(press.key.is_ascii() && press.volume < 64);
        }
        check_rtp(datagram, Wall(START.0 + elapsed.0), &mut analyzer);
    }
});

/// When the first datagram comes: late in 2023.
const START: Wall = Wall(1_700_000_000_000_000_000);

fn check_rtcp(datagram: &[u8]) {
    let mut json = String::new();
    let told = write_json(datagram, &mut json);
    assert!(told.is_ok() || json.is_empty());
    assert_eq!(json.matches("\"report_count\"").count(), json.matches("\"ssrc\"").count());
    if let Ok(compound) = RtcpView::parse(datagram) {
        assert!(is_rtcp(datagram) && compound.packets().count() > 0);
        assert!(compound.packets().map(|packet| packet.body.len()).sum::<usize>() < datagram.len());
    }
}

fn check_rtp(datagram: &[u8], arrival: Wall, analyzer: &mut Analyzer) {
    match RtpView::parse(datagram) {
        Ok(rtp) => {
            assert!(rtp.header_len() + rtp.payload().len() <= datagram.len());
            analyzer.packet(&rtp, arrival);
        }
        Err(_) => analyzer.parse_error(),
    }
    let report = analyzer.report();
    assert_eq!(report.nlost, report.nsent.wrapping_sub(report.nrcvd), "{report:?}");
    let jitter = analyzer.jitter();
    assert!([jitter.last, jitter.avg, jitter.max].iter().all(|figure| *figure >= 0.0), "{jitter:?}");
}
