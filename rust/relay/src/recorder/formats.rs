//! A recording's packets as the bytes of its files, over the layouts of the core.

use std::net::SocketAddr;

use rtpproxy_core::adhoc;
use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::{Now, Wall};

use super::queue::PacketHead;
use super::tally::Tally;
use crate::config::{RecordConfig, RecordFormat};

/// What a reader shall see at a packet. Only pcapng has a place for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// Remarks.
    pub(super) comments: Vec<String>,
    /// How many packets of the same stream are missing before it.
    pub(super) dropped: u64,
}

/// The encoder of one file.
#[derive(Debug)]
pub(super) struct Encoder {
    layout: Layout,
    /// The number of the first interface in pcapng.
    first_interface: u32,
    macs: MacStyle,
    /// The headers for each stream, and the addresses they are made for.
    framers: [Option<(SocketAddr, SocketAddr, Framer)>; 4],
    /// In compat, time stamps follow the monotonic clock from the first packet on.
    steady: Option<Option<Now>>,
}

impl Encoder {
    /// An encoder for the format of `config`.
    pub(super) fn new(config: &RecordConfig) -> Self {
        let (layout, macs) = match config.format {
            RecordFormat::Pcapng => (Layout::Pcapng { has_synthetic: config.sip_head }, MacStyle::Leg),
            RecordFormat::Pcap if config.nanoseconds => (Layout::Pcap(Resolution::Nano), MacStyle::Compat),
            RecordFormat::Pcap => (Layout::Pcap(Resolution::Micro), MacStyle::Compat),
            RecordFormat::Adhoc => (Layout::Adhoc, MacStyle::Compat),
        };
        Self {
            layout,
            first_interface: 0,
            macs,
            framers: [const { None }; 4],
            steady: config.compat.then_some(None),
        }
    }

    /// The interfaces are others from here on, beginning with this one.
    pub(super) fn set_first_interface(&mut self, number: u32) {
        self.first_interface = number;
    }

    /// Whether the format has room for comments.
    pub(super) fn takes_comments(&self) -> bool {
        matches!(self.layout, Layout::Pcapng { .. })
    }

    /// Appends what stands at the start of a file.
    pub(super) fn begin(&self, comments: &[String], out: &mut Vec<u8>) {
        match self.layout {
            Layout::Adhoc => {}
            Layout::Pcap(resolution) => pcap::file_header(resolution, out),
            Layout::Pcapng { has_synthetic } => {
                pcapng::section(&borrowed(comments), out);
                for name in pcapng::INTERFACE_NAMES {
                    pcapng::interface(name, out);
                }
                if has_synthetic {
                    pcapng::interface(pcapng::SYNTHETIC_NAME, out);
                }
            }
        }
    }

    /// Appends a packet. `ip_id` counts the packets of all files.
    pub(super) fn packet(
        &mut self,
        packet: &PacketHead,
        payload: &[u8],
        notes: &Notes,
        ip_id: &mut u16,
        out: &mut Vec<u8>,
    ) {
        let at = self.stamp(packet.at);
        match self.layout {
            Layout::Adhoc => adhoc::record(packet.src, at, payload, out),
            Layout::Pcap(resolution) => {
                let framer = self.framer(packet);
                pcap::record_header(resolution, at, framer.frame_len(payload.len()), out);
                framer.write(next(ip_id), payload, out);
            }
            Layout::Pcapng { .. } => {
                let first_interface = self.first_interface;
                let framer = self.framer(packet);
                let options = PacketOptions {
                    inbound: true,
                    drops: (notes.dropped > 0).then_some(notes.dropped),
                    comments: &borrowed(&notes.comments),
                };
                let interface = first_interface + pcapng::interface_of(packet.leg, packet.channel);
                pcapng::packet_with(interface, at, options, out, |out| {
                    framer.write(next(ip_id), payload, out);
                });
            }
        }
    }

    /// Appends a frame that never was on the wire, marked as such. Only pcapng has them.
    pub(super) fn synthetic(
        &self,
        sender: Leg,
        [src, dst]: [SocketAddr; 2],
        at: Wall,
        text: &[u8],
        out: &mut Vec<u8>,
    ) {
        if self.layout != (Layout::Pcapng { has_synthetic: true }) {
            return;
        }
        let framer = Framer::new(src, dst, Macs::Leg(sender));
        let options = PacketOptions { comments: &[SYNTHETIC_COMMENT], ..PacketOptions::default() };
        let interface = self.first_interface + SYNTHETIC_INTERFACE;
        pcapng::packet_with(interface, at, options, out, |out| framer.write(0, text, out));
    }

    /// Appends what stands at the end of a file: totals, and remarks on what no packet followed.
    pub(super) fn end(&self, tally: &Tally, start: Wall, end: Wall, comments: &[String], out: &mut Vec<u8>) {
        if !self.takes_comments() {
            return;
        }
        let mut comments = borrowed(comments);
        for channel in [Channel::Rtp, Channel::Rtcp] {
            for leg in [Leg::Caller, Leg::Callee] {
                let stream = tally.stream(leg, channel);
                let received = stream.packets + stream.dropped;
                let interface = self.first_interface + pcapng::interface_of(leg, channel);
                pcapng::statistics(interface, start, end, received, stream.dropped, &comments, out);
                comments.clear();
            }
        }
    }

    fn stamp(&mut self, at: Now) -> Wall {
        match &mut self.steady {
            None => at.wall,
            Some(first) => {
                let first = first.get_or_insert(at);
                Wall(first.wall.0 + at.mono.0.saturating_sub(first.mono.0))
            }
        }
    }

    fn framer(&mut self, packet: &PacketHead) -> &Framer {
        let PacketHead { leg, channel, src, dst, .. } = *packet;
        let slot = &mut self.framers[pcapng::interface_of(leg, channel) as usize];
        let is_fitting = matches!(slot, Some((from, to, _)) if (*from, *to) == (src, dst));
        if !is_fitting {
            *slot = None;
        }
        let macs = match self.macs {
            MacStyle::Compat => Macs::Compat,
            MacStyle::Leg => Macs::Leg(leg),
        };
        let (_, _, framer) = slot.get_or_insert_with(|| (src, dst, Framer::new(src, dst, macs)));
        framer
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Pcapng { has_synthetic: bool },
    Pcap(Resolution),
    Adhoc,
}

#[derive(Clone, Copy, Debug)]
enum MacStyle {
    Compat,
    Leg,
}

fn borrowed(comments: &[String]) -> Vec<&str> {
    comments.iter().map(String::as_str).collect()
}

fn next(ip_id: &mut u16) -> u16 {
    let id = *ip_id;
    *ip_id = id.wrapping_add(1);
    id
}

/// The interface of frames that never were on the wire, behind those of [`pcapng::INTERFACE_NAMES`].
const SYNTHETIC_INTERFACE: u32 = pcapng::INTERFACE_NAMES.len() as u32;
const SYNTHETIC_COMMENT: &str = "synthetic: written by the recorder, never on the wire";
