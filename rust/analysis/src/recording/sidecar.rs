//! What the file beside a recording says of its legs (docs/recording-files.md).

use std::net::SocketAddr;
use std::path::Path;

use rtpproxy_core::recording::Leg;
use serde_json::Value;

use crate::verify::sidecar_of;

/// Whose packets are whose, as far as the sidecar knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sidecar {
    /// The leg that all packets are of.
    pub(super) leg: Option<Leg>,
    /// The addresses that packets came from, of the caller and the callee.
    sources: [Vec<SocketAddr>; 2],
}

impl Sidecar {
    /// Reads the sidecar of a capture; without one, or if it cannot be understood, nothing is known.
    pub(super) fn beside(path: &Path) -> Self {
        let text = std::fs::read(sidecar_of(path)).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// The leg that sends from an address.
    pub(super) fn leg_of(&self, source: SocketAddr) -> Option<Leg> {
        match self.sources.each_ref().map(|known| known.contains(&source)) {
            [true, false] => Some(Leg::Caller),
            [false, true] => Some(Leg::Callee),
            _ => self.leg,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let sources = [Leg::Caller, Leg::Callee].map(|leg| {
            let listed = value["legs"][leg.name()]["rtp"]["sources"].as_array();
            listed.into_iter().flatten().filter_map(|address| address.as_str()?.parse().ok()).collect()
        });
        let leg = [Leg::Caller, Leg::Callee].into_iter().find(|leg| value["leg"] == leg.name());
        Some(Self { leg, sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_the_leg() {
        let text = br#"{"legs": {"caller": {"rtp": {"sources": ["192.0.2.1:4000", "192.0.2.9:1"]}},
            "callee": {"rtp": {"sources": ["[2001:db8::1]:5000", "192.0.2.9:1"]}}}}"#;
        let sidecar = Sidecar::parse(text).unwrap();
        let leg_of = |address: &str| sidecar.leg_of(address.parse().unwrap());
        assert_eq!(leg_of("192.0.2.1:4000"), Some(Leg::Caller));
        assert_eq!(leg_of("[2001:db8::1]:5000"), Some(Leg::Callee));
        assert_eq!(leg_of("192.0.2.1:4001"), None);
        assert_eq!(leg_of("192.0.2.9:1"), None, "both used it");
    }

    #[test]
    fn a_recording_of_one_leg_says_so() {
        let sidecar = Sidecar::parse(br#"{"leg": "callee", "legs": 7}"#).unwrap();
        assert_eq!(sidecar.leg, Some(Leg::Callee));
        assert_eq!(sidecar.leg_of("192.0.2.1:1".parse().unwrap()), Some(Leg::Callee));
        assert_eq!(Sidecar::parse(b"nonsense"), None);
    }
}
