//! The `rtpproxy` binary.

fn main() {
    std::process::exit(rtpproxy_cli::run(std::env::args_os().collect()));
}
