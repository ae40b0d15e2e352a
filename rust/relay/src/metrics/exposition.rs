//! Figures as text, in the format of OpenMetrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rtpproxy_core::host::FolderState;

use super::figures::Figures;
use crate::preroll::PrerollFigures;
use crate::recorder::{RecorderFigures, RecordingState};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of a scrape.
pub(super) fn page(figures: Figures) -> String {
    let mut registry = Registry::with_prefix("rtpproxy");
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes all that is written");
    text
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.media(&mut page)?;
        self.sessions(&mut page)?;
        self.control(&mut page)?;
        if let Some(recorder) = &self.recorder {
            recordings(recorder, &mut page)?;
            recorded(recorder, &mut page)?;
        }
        if let Some(kept) = &self.preroll {
            preroll(kept, &mut page)?;
        }
        self.modules(&mut page)
    }
}

impl Figures {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        page.version()?;
        page.gauge("start_time", "When the relay started, since 1970", Some(&Unit::Seconds), self.started_s)?;
        page.gauge("draining", "1 while new sessions are refused", None, self.is_draining.into())
    }

    fn media(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.stats;
        page.counter("media_packets_received", "Datagrams received on complete sessions", stats.npkts_rcvd)?;
        page.counter("media_packets_relayed", "Datagrams relayed", stats.npkts_relayed)?;
        page.counter(
            "media_packets_discarded",
            "Datagrams dropped, refused, or too early",
            stats.npkts_discard,
        )?;
        page.counter("media_packets_played", "Packets of prompts", stats.npkts_played)?;
        page.counter("resizer_packets_received", "Packets that resizers took", stats.npkts_resizer_in)?;
        page.counter("resizer_packets_made", "Packets that resizers made", stats.npkts_resizer_out)?;
        page.counter(
            "resizer_packets_discarded",
            "Packets that resizers threw away",
            stats.npkts_resizer_discard,
        )?;
        let [v4, v6] = &self.ports;
        page.gauges(
            "port_pairs_in_use",
            "Pairs of media ports that sessions have",
            "family",
            &[("ipv4", v4.in_use), ("ipv6", v6.in_use)],
        )?;
        page.gauges(
            "port_pairs_free",
            "Pairs of media ports that sessions can still get, over all media addresses",
            "family",
            &[("ipv4", v4.free), ("ipv6", v6.free)],
        )
    }

    fn sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.stats;
        page.gauge("sessions", "Sessions now", None, stats.sessions_active)?;
        page.counter("sessions_created", "Sessions created", stats.nsess_created)?;
        page.counter("sessions_ended", "Sessions gone, for whatever reason", stats.nsess_destroyed)?;
        page.counter("sessions_timed_out", "Sessions gone for want of media", stats.nsess_timeout)?;
        page.counter("sessions_completed", "Sessions that got both parties", stats.nsess_complete)?;
        page.counter(
            "sessions_without_media",
            "Complete sessions that ended with RTP from neither party",
            stats.nsess_nortp,
        )?;
        page.counter(
            "sessions_one_way",
            "Complete sessions that ended with RTP from one party only",
            stats.nsess_owrtp,
        )?;
        page.counter_of(
            "session_duration",
            "How long ended sessions lasted, summed",
            Some(&Unit::Seconds),
            stats.total_duration,
        )?;
        page.counter("prompts_started", "Prompts begun", stats.nplrs_created)
    }

    fn control(&self, page: &mut Page<'_>) -> fmt::Result {
        let commands = &self.commands;
        page.counter("commands_received", "Commands received, without repeated ones", commands.rcvd)?;
        page.counters(
            "commands_answered",
            "Commands answered, by what became of them",
            "outcome",
            &[("succeeded", commands.succd), ("failed", commands.errs)],
        )?;
        page.counter(
            "commands_repeated",
            "Datagrams that repeated a command and got the same answer",
            commands.rcvd_dups,
        )?;
        page.counter("notifications_lost", "Notifications that nobody got", self.notifications_lost)
    }

    fn modules(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(csv) = &self.modules.acct_csv {
            page.counter("acct_csv_lines_written", "Lines of accounting written", csv.done)?;
            page.counter("acct_csv_lines_lost", "Lines of accounting lost", csv.lost)?;
        }
        if let Some(hep) = &self.modules.acct_rtcp_hep {
            page.counter("hep_messages_sent", "RTCP reports sent to capture servers", hep.done)?;
            page.counter("hep_messages_lost", "RTCP reports that no capture server got", hep.lost)?;
        }
        Ok(())
    }
}

fn recordings(recorder: &RecorderFigures, page: &mut Page<'_>) -> fmt::Result {
    let states = RecordingState::RUNNING.iter().map(|state| state.name());
    let running: Vec<_> = states.zip(recorder.running).collect();
    page.gauges("recordings", "Recordings that run, by their state", "state", &running)?;
    page.counter("recordings_started", "Recordings begun", recorder.started)?;
    page.counter("recordings_finished", "Recordings that ended well", recorder.finished)?;
    page.counter("recordings_failed", "Recordings given up", recorder.failed)?;
    page.gauge(
        "recordings_to_convert",
        "Recordings that have ended and wait to be compressed or encrypted",
        None,
        recorder.conversions_waiting,
    )?;
    page.counters(
        "recordings_converted",
        "Recordings that were to be compressed or encrypted, by what became of that",
        "outcome",
        &[("succeeded", recorder.converted), ("failed", recorder.not_converted)],
    )?;
    let folder = |state| u64::from(recorder.folder == state);
    page.gauges(
        "recording_folder",
        "1 for the state that the folders for recordings are in",
        "state",
        &[
            ("ready", folder(FolderState::Ready)),
            ("troubled", folder(FolderState::Troubled)),
            ("unusable", folder(FolderState::Unusable)),
        ],
    )?;
    page.counter("record_events_delivered", "Events of recordings delivered", recorder.events_delivered)?;
    page.counter("record_events_lost", "Events of recordings that were lost or failed", recorder.events_lost)
}

fn recorded(recorder: &RecorderFigures, page: &mut Page<'_>) -> fmt::Result {
    page.counter("recording_packets", "Packets recorded", recorder.packets)?;
    page.counter_of(
        "recording_payload",
        "Payload of the packets recorded",
        Some(&Unit::Bytes),
        recorder.payload_bytes,
    )?;
    page.counter_of(
        "recording_written",
        "Bytes written to recordings",
        Some(&Unit::Bytes),
        recorder.written_bytes,
    )?;
    page.counters(
        "recording_packets_dropped",
        "Packets that are missing in recordings, by what there was too little of",
        "cause",
        &[("disk", recorder.dropped_by_disk), ("memory", recorder.dropped_by_memory)],
    )?;
    page.counter("recording_errors", "Files that could not be opened, written or finished", recorder.errors)?;
    page.gauge(
        "recording_last_error_timestamp",
        "When a file could not be opened, written or finished the last time, since 1970; 0 for never",
        Some(&Unit::Seconds),
        recorder.last_error_s,
    )?;
    let bytes = Some(&Unit::Bytes);
    page.gauge(
        "recording_queue",
        "Memory of packets on their way to the recorder",
        bytes,
        recorder.queue_bytes,
    )?;
    page.gauge("recording_queue_limit", "The bound of that memory", bytes, recorder.queue_bytes_max)
}

fn preroll(kept: &PrerollFigures, page: &mut Page<'_>) -> fmt::Result {
    let bytes = Some(&Unit::Bytes);
    page.gauge("preroll_memory", "Memory of packets from before recordings", bytes, kept.used_bytes)?;
    page.gauge("preroll_memory_limit", "The bound of that memory", bytes, kept.limit_bytes)?;
    page.gauge("preroll_sessions", "Sessions whose last seconds are kept", None, kept.sessions)?;
    page.counter("preroll_packets_lost", "Kept packets that were lost to the bound of the memory", kept.lost)
}

/// A text that grows by one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counter_of(name, help, None, value)
    }

    fn counter_of<N>(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: N) -> fmt::Result
    where
        N: EncodeCounterValue,
        ConstCounter<N>: EncodeMetric,
    {
        let encoder = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        self.family((name, help, MetricType::Counter), label, values, ConstCounter::new)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        self.family((name, help, MetricType::Gauge), label, values, ConstGauge::new)
    }

    fn family<M: EncodeMetric>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        label: &str,
        values: &[(&str, u64)],
        metric: fn(u64) -> M,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for &(word, value) in values {
            metric(value).encode(family.encode_family(&[(label, word)])?)?;
        }
        Ok(())
    }

    fn version(&mut self) -> fmt::Result {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let encoder =
            self.0.encode_descriptor("build", "The version of the relay", None, MetricType::Info)?;
        version.encode(encoder)
    }
}
