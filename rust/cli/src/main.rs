//! The `rtpproxy` binary.

fn main() {}
