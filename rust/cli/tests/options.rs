//! The command line: every message, every exit status.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use support::{is_root, run};

/// Runs with `args`; returns standard error of a run that ended with status 1 and said nothing else.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    stderr
}

fn printed(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    assert!(output.stderr.is_empty(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_bad_value_ends_with_its_message() {
    let long = format!("unix:/tmp/{}", "x".repeat(120));
    let rows: &[(&[&str], &str)] = &[
        (&["-A", ""], "first advertised address is invalid"),
        (&["-A", "/b"], "first advertised address is invalid"),
        (&["-A", "a/"], "second advertised address is invalid"),
        (&["-c", "batch"], "batch: unknown scheduling policy"),
        (&["-d", "loud"], "loud: invalid log level"),
        (&["-d", "err:kitchen"], "kitchen: invalid log facility"),
        (&["-L", "many"], "many: max file rlimit argument is invalid"),
        (&["-M", "x"], "x: max port argument is invalid"),
        (&["-m", "1x"], "1x: min port argument is invalid"),
        (&["-M", "65536"], "invalid value of the port_max argument, not in the range 1-65535"),
        (&["-m", "0"], "invalid value of the port_min argument, not in the range 1-65535"),
        (&["-m", "-5"], "invalid value of the port_min argument, not in the range 1-65535"),
        (&["-m", "40000", "-M", "30000"], "port_min should be less than port_max"),
        (&["-n", ""], "timeout notification socket name too short"),
        (&["-n", "tcp:127.0.0.1"], "error adding timeout notification: tcp:127.0.0.1: the port is missing"),
        (&["-S", "/tmp"], "-S switch requires -r switch"),
        (&["-s", "stdio:"], "stdio command mode requires -f switch"),
        (&["-T", "0"], "0: max TTL argument is invalid"),
        (&["-T", "1 "], "1 : max TTL argument is invalid"),
        (&["-W", "-1"], "-1: max setup TTL argument is invalid"),
        (&["-t", "x"], "x: TOS argument is invalid"),
        (&["-t", "-1"], "-1: TOS is too small/large"),
        (&["-t", "256"], "256: TOS is too small/large"),
        (&["-u", "no-such-user"], "can't find ID for the user: no-such-user"),
        (&["-u", "0"], "can't find ID for the user: 0"),
        (&["-u", "root:no-such-group"], "can't find ID for the group: no-such-group"),
        (&["-u", ":no-such-group"], "can't find ID for the group: no-such-group"),
        (&["-w", "4096"], "4096: socket mode argument is invalid"),
        (&["-w", "0o755"], "0o755: socket mode argument is invalid"),
        (&["--nice", "x"], "x: nice level argument is invalid"),
        (&["--nice=-21"], "-21: nice level is out of range -20..20"),
        (&["--nice", "21"], "21: nice level is out of range -20..20"),
        (&["-l", "127.0.0.1", "-l", "127.0.0.2"], "127.0.0.2: address label is missing"),
        (&["-l", "127.0.0.1", "-l", "a@127.0.0.2", "-6", "a@::1"], "a: duplicate label"),
        (&["-l", "127.0.0.1/"], "incomplete configuration of the bridging mode"),
        (&["-l", "127.0.0.1/127.0.0.2", "-A", "a"], "two advertised addresses are required"),
        (&["--no_resolve", "-l", "host.example"], "host.example: not a numeric IPv4 address"),
        (&["--latch", "open"], "open: unknown latch mode, choose strict, nat or legacy"),
        (&["--record-format", "wav"], "wav: unknown record format, choose pcapng, pcap or adhoc"),
        (&["--record-scope", "leg"], "leg: unknown record scope, choose call or stream"),
        (&["--record-buffer", "lots"], "lots: record buffer size is invalid"),
        (&["--record-buffer", "1K"], "1K: record buffer is smaller than 1M"),
        (&["--codec-map", "128=opus/48000"], "128=opus/48000: codec map is invalid"),
        (&["--codec-map", "111=opus"], "111=opus: codec map is invalid"),
        (&["--workers", "0"], "0: number of workers is invalid"),
        (&["--config", "/etc/x"], "/etc/x: can't read the configuration: No such file or directory"),
        (&["--dso", "/lib/x.so"], "realpath: /lib/x.so: No such file or directory"),
        (&["--dso", "acct_rtcp_hep"], "acct_rtcp_hep: requires configuration"),
        (&["--ds", "dtls_gw"], "dtls_gw: module dtls_gw is not part of this version"),
        (&["-s", &long], &"x".repeat(120)),
        (&["-f", "-F", "-s", "unix:/no/such/folder/sock"], "/no/such/folder/sock"),
        (&["-L", "999999999999", "-f"], "can't limit open files to 999999999999"),
    ];
    for (args, message) in rows {
        let stderr = refused(args);
        assert!(stderr.starts_with("rtpproxy: "), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
        assert!(!stderr.contains("Usage"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_line_that_does_not_fit_shows_the_usage() {
    let rows: &[(&[&str], &str)] = &[
        (&["--loud"], "unknown option --loud"),
        (&["-m"], "option -m needs an argument"),
        (&["--nice"], "option --nice needs an argument"),
        (&["--no_re"], "option --no_re may mean"),
        (&["--overload_prot", "x"], "1 extra unhandled argument(s) at the end of the command line"),
        (&["x", "-f", "demo"], "2 extra unhandled argument(s) at the end of the command line"),
    ];
    for (args, message) in rows {
        let stderr = refused(args);
        assert!(stderr.contains(message) && stderr.contains("Usage: rtpproxy"), "{args:?}: {stderr}");
    }
    for letter in "BEGHIJKNOQUXYZeghjkoqxyz".chars() {
        let stderr = refused(&[&format!("-{letter}")]);
        assert!(stderr.contains(&format!("unknown option -{letter}")), "{stderr}");
    }
}

#[test]
fn questions_are_answered_when_they_are_met() {
    assert_eq!(printed(&["-V"]), format!("{}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(printed(&["-C"]), "CLOCK_BOOTTIME\n");
    assert_eq!(printed(&["-fV", "--loud", "x"]), printed(&["-V"]));
    assert!(refused(&["-m", "0", "-V"]).contains("port_min"));
    assert!(refused(&["--loud", "-V"]).contains("unknown option"));

    let text = printed(&["-v"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "Basic version: 20040107");
    assert!(lines[1].starts_with("Extension 20040107: "), "{text}");
    assert!(lines.last().unwrap().starts_with("Extension 20260309: "), "{text}");
    assert_eq!(lines.len(), 26);
}

#[test]
fn the_help_shows_every_option() {
    let text = printed(&["--help"]);
    for option in ["-2", "-6", "-l", "--bridge_symmetric", "--latch", "--compat", "--codec-map", "demo"] {
        assert!(text.contains(option), "{option}: {text}");
    }
    assert!(printed(&["demo", "--help"]).contains("--seconds"));
}

#[test]
fn a_udp_control_socket_as_root_must_be_meant() {
    if !is_root() {
        return;
    }
    let stderr = refused(&["-f", "-s", "udp:127.0.0.1:0", "-p", "/dev/null"]);
    assert!(stderr.contains("use -u to give up root, or -F to insist"), "{stderr}");
}
