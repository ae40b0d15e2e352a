//! The command line, as far as the C program does not know it; what it knows is in `tests/test_options.py`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use support::run;

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
    let rows: &[(&[&str], &str)] = &[
        (&["--latch", "open"], "open: unknown latch mode, choose strict, nat or legacy"),
        (&["--record-format", "wav"], "wav: unknown record format, choose pcapng, pcap or adhoc"),
        (&["--record-scope", "leg"], "leg: unknown record scope, choose call or stream"),
        (&["--record-min-free", "much"], "much: not a number of bytes, nor a percentage from 1% to 99%"),
        (
            &["--record-name", "%Y/../%{call-id}"],
            "record name %Y/../%{call-id} is invalid at character 4: a name cannot begin with a dot",
        ),
        (&["--record-min-free", "100%"], "100%: not a number of bytes, nor a percentage from 1% to 99%"),
        (&["--record-compress", "xz"], "xz: unknown compression, choose zstd or gzip"),
        (&["--record-buffer", "lots"], "lots: record buffer size is invalid"),
        (&["--record-max-age", "30"], "30: record age is invalid, write 30d, 12h, 90m or 30s"),
        (&["--record-quota", "1K"], "1K: record quota is smaller than 1M"),
        (&["--record-flush", "99ms"], "99ms: record flush is invalid, write 100ms to 60s"),
        (&["--record-flush", "61s"], "61s: record flush is invalid, write 100ms to 60s"),
        (&["--record-flush", "-1ms"], "-1ms: record flush is invalid, write 100ms to 60s"),
        (&["--record-rotate-size", "big"], "big: record rotate size is invalid"),
        (&["--record-rotate-size", "1000K"], "1000K: record rotate size is smaller than 1M"),
        (&["--record-layout", "file"], "file: unknown record layout, choose call or journal"),
        (&["--record-segment", "2h"], "2h: record segment is invalid, write 1s to 1h"),
        (&["--record-rotate-time", "0s"], "0s: record rotate time is invalid, write 30s, 15m or 1h"),
        (&["--preroll", "0"], "0: preroll is invalid, choose 1 to 3600 seconds"),
        (&["--preroll", "3601"], "3601: preroll is invalid, choose 1 to 3600 seconds"),
        (&["--preroll-memory", "1K"], "1K: preroll memory is smaller than 1M"),
        (&["--record-buffer", "1K"], "1K: record buffer is smaller than 1M"),
        (&["--codec-map", "128=opus/48000"], "128=opus/48000: codec map is invalid"),
        (&["--codec-map", "111=opus"], "111=opus: codec map is invalid"),
        (&["--workers", "0"], "0: number of workers is invalid"),
        (&["--config", "/etc/x"], "/etc/x: can't read the configuration: No such file or directory"),
        (&["--dso", "/lib/x.so"], "realpath: /lib/x.so: No such file or directory"),
        (&["--dso", "acct_rtcp_hep"], "acct_rtcp_hep: requires configuration"),
        (&["--ds", "dtls_gw"], "dtls_gw: module dtls_gw is not part of this version"),
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
}

#[test]
fn the_help_shows_every_option() {
    let text = printed(&["--help"]);
    for option in ["-2", "-6", "-l", "--bridge_symmetric", "--latch", "--compat", "--codec-map", "demo"] {
        assert!(text.contains(option), "{option}: {text}");
    }
    assert!(printed(&["demo", "--help"]).contains("--seconds"));
}
