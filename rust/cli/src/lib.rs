//! The `rtpproxy` command.
