//! The IO that a reply needs, as a trait: real in the relay, a fake in tests.

use std::net::IpAddr;
use std::sync::Arc;

use crate::effects::PairId;
use crate::time::Now;

/// An open pair of media sockets: RTP on the even `port`, RTCP on `port + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedPair {
    /// The handle of the pair, unique among the open ones of this engine. Small and dense: hosts re-use them.
    pub id: PairId,
    /// The RTP port.
    pub port: u16,
}

/// Why no pair could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Every port of the range is in use.
    #[error("no free port in the range")]
    Exhausted,
    /// The address cannot be bound, or descriptors ran out.
    #[error("the address cannot be bound")]
    Failed,
}

/// What the recorder last saw of the recording folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderState {
    /// Files can be written.
    Ready,
    /// The disk does not answer, or is full: a recording may start, degraded.
    Troubled,
    /// No folder configured, or it is missing, not a folder, or not permitted.
    Unusable,
}

/// What the engine asks of the shell while it answers a command.
pub trait Host {
    /// Opens a pair of media sockets on `ip`, in the port order of docs/protocol.md.
    fn open_pair(&mut self, now: Now, ip: IpAddr) -> Result<OpenedPair, OpenError>;

    /// The file of the prompt that the present command names, in the coding of a payload type. It was read before
    /// the command came here; `None` if there is no such file.
    fn prompt(&self, payload_type: u8) -> Option<Arc<[u8]>>;

    /// The state of the recording folder, without touching the disk.
    fn recording_folder(&self) -> FolderState;

    /// A random number from a source that outsiders cannot predict.
    fn random(&mut self) -> u64;
}
