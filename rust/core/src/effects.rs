//! What the shell has to carry out after a packet, a command or a tick.

use std::net::SocketAddr;
use std::ops::Range;

use crate::accounting::SessionEnd;
use crate::command::{CallId, NotifyTarget};
use crate::recording::{Channel, KeptId, Leg, RecordingEvent, RecordingId};
use crate::time::{Now, Wall};

/// The handle of an open pair of media sockets. Given by the host, small and dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId(pub u32);

/// One media socket: a pair and which of its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaPort {
    /// The pair.
    pub pair: PairId,
    /// RTP or RTCP.
    pub channel: Channel,
}

/// A received datagram in the worker's buffer.
///
/// The payload lies in the middle of the buffer, so that later stages (SRTP, tunnelling) can grow it at
/// either end without a copy.
#[derive(Debug)]
pub struct Packet {
    buffer: Box<[u8]>,
    payload: Range<usize>,
}

impl Packet {
    /// Room before the payload, in bytes.
    pub const HEAD_ROOM: usize = 64;
    /// Room behind the payload, in bytes.
    pub const TAIL_ROOM: usize = 64;
    /// The largest datagram that is relayed whole, in bytes; longer ones are cut, as the C program does.
    pub const MAX_PAYLOAD: usize = 8192;

    /// An empty packet with room for [`Self::MAX_PAYLOAD`].
    pub fn new() -> Self {
        let size = Self::HEAD_ROOM + Self::MAX_PAYLOAD + Self::TAIL_ROOM;
        Self { buffer: vec![0; size].into_boxed_slice(), payload: Self::HEAD_ROOM..Self::HEAD_ROOM }
    }

    /// Where to receive the next datagram; call [`Self::set_len`] afterwards.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        &mut self.buffer[Self::HEAD_ROOM..Self::HEAD_ROOM + Self::MAX_PAYLOAD]
    }

    /// Says how many bytes the receive buffer holds now.
    pub fn set_len(&mut self, len: usize) {
        self.payload = Self::HEAD_ROOM..Self::HEAD_ROOM + len.min(Self::MAX_PAYLOAD);
    }

    /// Copies `bytes` in, for tests and generated packets.
    pub fn fill(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(Self::MAX_PAYLOAD);
        self.receive_buffer()[..len].copy_from_slice(&bytes[..len]);
        self.set_len(len);
    }

    /// The datagram.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of a packet effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The datagram as received.
    Received,
    /// A range of [`Out::scratch`].
    Scratch(Range<usize>),
}

/// A copy of a packet for a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPacket {
    /// The recording.
    pub id: RecordingId,
    /// Who sent it.
    pub leg: Leg,
    /// On which port.
    pub channel: Channel,
    /// When the kernel received it.
    pub at: Now,
    /// From where.
    pub src: SocketAddr,
    /// To which of our addresses.
    pub dst: SocketAddr,
    /// The bytes.
    pub payload: Payload,
}

/// A copy of a packet for a recording that may begin later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPacket {
    /// Whose packets it belongs to.
    pub id: KeptId,
    /// On which port.
    pub channel: Channel,
    /// When the kernel received it.
    pub at: Now,
    /// From where.
    pub src: SocketAddr,
    /// To which of our addresses.
    pub dst: SocketAddr,
    /// The bytes.
    pub payload: Payload,
}

/// What was kept goes into a recording that has just begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The recording.
    pub to: RecordingId,
    /// When it was asked for.
    pub at: Now,
    /// What was kept of the caller, then of the callee, as far as the recording covers them.
    pub kept: [Option<KeptId>; 2],
    /// Another recording may want it too; otherwise nothing more is kept under these names.
    pub stays: bool,
}

/// RTCP that a party sent, for capture servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedRtcp {
    /// The call.
    pub call_id: CallId,
    /// When the kernel received it.
    pub at: Wall,
    /// From where.
    pub src: SocketAddr,
    /// To which of our addresses.
    pub dst: SocketAddr,
    /// The bytes.
    pub payload: Payload,
}

/// Names one live tap of a session; never re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapId(pub u64);

/// A copy of a packet for a live tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TappedPacket {
    /// The tap.
    pub id: TapId,
    /// Who sent it.
    pub leg: Leg,
    /// On which port.
    pub channel: Channel,
    /// When the kernel received it.
    pub at: Wall,
    /// From where.
    pub src: SocketAddr,
    /// To which of our addresses.
    pub dst: SocketAddr,
    /// The bytes.
    pub payload: Payload,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a packet.
    Send {
        /// The bytes.
        payload: Payload,
        /// From this socket.
        via: MediaPort,
        /// To this address.
        to: SocketAddr,
    },
    /// Send a packet to a host that gets copies.
    Copy {
        /// The bytes.
        payload: Payload,
        /// From this socket, whose pair is that of the host alone.
        via: MediaPort,
        /// To this address.
        to: SocketAddr,
    },
    /// Copy a packet into a tap.
    Tap(TappedPacket),
    /// The session of a tap is gone.
    TapEnd(TapId),
    /// Copy a packet into a recording.
    Record(RecordPacket),
    /// Copy a packet into the memory of the last seconds.
    Keep(KeptPacket),
    /// Give the recorder what was kept, ahead of the packets that follow.
    HandOver(HandOver),
    /// Free what was kept.
    Forget(KeptId),
    /// Tell capture servers.
    Rtcp(CapturedRtcp),
    /// Tell the recorder.
    Recording(RecordingEvent),
    /// Let both sockets of an IPv4 pair send with this TOS byte from now on.
    SetTos {
        /// The pair.
        pair: PairId,
        /// The byte.
        tos: u8,
    },
    /// Close a pair of sockets and give its ports back.
    Close(PairId),
    /// Write `text` to a notification target.
    Notify {
        /// Where to.
        target: NotifyTarget,
        /// The bytes, with the line feed.
        text: Vec<u8>,
    },
    /// A session is gone. Only with accounting.
    Ended(Box<SessionEnd>),
}

/// The worker's list of effects, emptied and re-used.
#[derive(Debug, Default)]
pub struct Out {
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// Bytes that effects refer to.
    pub scratch: Vec<u8>,
}

impl Out {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.scratch.clear();
    }

    /// Adds an effect.
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
