//! The module `rtpproxy._rtpproxy`.
