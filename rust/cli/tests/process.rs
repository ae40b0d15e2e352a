//! The process: foreground and background, pid file, log. The signals are in `tests/test_process.py`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use support::{Background, Place, Running, ask, until};

#[test]
fn hangup_without_sessions_ends_it() {
    let place = Place::new();
    let relay = place.start(&["-d", "info"]);
    relay.signal(Signal::HUP);
    let (status, stderr) = relay.end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.ends_with(": rtpproxy ended\n"), "{stderr}");
}

#[test]
fn the_end_of_a_session_is_summed_up() {
    let place = Place::new();
    let relay = place.start(&["-d", "info"]);
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.ask(&format!("U one 127.0.0.1 {} from", phone.local_addr().unwrap().port()));
    let reply = relay.ask("L one 127.0.0.1 9 from to");
    let port: u16 = reply.split(' ').next().unwrap().parse().unwrap();
    for sequence in 1..=3_u8 {
        let mut packet = [0_u8; 172];
        (packet[0], packet[3], packet[11]) = (0x80, sequence, 0xab);
        phone.send_to(&packet, ("127.0.0.1", port)).unwrap();
    }
    until("the packets are relayed", || relay.ask("Q one from to nrelayed") == "3\n");
    assert_eq!(relay.ask("D one from"), "0\n");
    relay.signal(Signal::TERM);
    let log = relay.end().1;
    let mut lines = log.lines().filter(|line| line.starts_with("INFO:one:"));
    for part in [
        "RTP stats: 0 in from callee, 3 in from caller, 3 relayed, 0 dropped, 0 ignored",
        "RTCP stats: 0 in from callee, 0 in from caller, 0 relayed, 0 dropped, 0 ignored",
        "RTP times of the caller: first packet 0.",
        "RTP stream from caller: SSRC=0x000000AB, ssrc_changes=1, psent=3, precvd=3, plost=0, pdups=0",
        "is cleaned up",
    ] {
        assert!(lines.any(|line| line.contains(part)), "{part}: {log}");
    }
}

#[test]
fn the_background_is_a_session_of_its_own() {
    for (args, folder) in [(&[][..], Some("/")), (&["-D"], None)] {
        let place = Place::new();
        let output = place.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
        let daemon = Background::from_pid_file(&place.pid_file());
        assert_eq!(ask(&place.socket(), "V"), "20040107\n");
        let proc = format!("/proc/{}", daemon.0);
        let expected = folder.map_or(place.folder.path().canonicalize().unwrap(), Into::into);
        assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap(), expected);
        for descriptor in 0..3 {
            let target = fs::read_link(format!("{proc}/fd/{descriptor}")).unwrap();
            assert_eq!(target.to_str(), Some("/dev/null"), "{descriptor}");
        }
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
        assert_eq!(session, daemon.0.to_string(), "{stat}");
        daemon.signal(Signal::TERM);
        daemon.wait_for_end();
        until("the files are gone", || !place.pid_file().exists() && !place.socket().exists());
    }
}

#[test]
fn a_daemon_that_cannot_start_says_so() {
    let place = Place::new();
    let output = place.command(&["-s", "unix:/no/such/folder/sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.ends_with("unix:/no/such/folder/sock\": No such file or directory\n"), "{stderr}");
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

#[test]
fn only_a_regular_pid_file_is_removed() {
    let place = Place::new();
    let target = place.path("target");
    symlink(&target, place.pid_file()).unwrap();
    let relay = place.start(&[]);
    wait_for_pid(&target, &relay);
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().0.code(), Some(0));
    assert!(place.pid_file().is_symlink() && target.exists());

    let place = Place::new();
    assert!(Command::new("mkfifo").arg(place.pid_file()).status().unwrap().success());
    let relay = place.start(&[]);
    relay.signal(Signal::TERM);
    let (status, stderr) = relay.end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains("can't open the pid file"), "{stderr}");
    assert!(place.pid_file().exists());
}

#[test]
fn a_pid_file_of_somebody_else_stays() {
    let place = Place::new();
    let relay = place.start(&[]);
    wait_for_pid(&place.pid_file(), &relay);
    fs::remove_file(place.pid_file()).unwrap();
    fs::write(place.pid_file(), "1\n").unwrap();
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().0.code(), Some(0));
    assert_eq!(fs::read_to_string(place.pid_file()).unwrap(), "1\n");
}

#[test]
fn a_missing_pid_folder_is_logged_and_no_more() {
    let place = Place::new();
    let relay = place.start(&["-p", "/no/such/folder/pid"]);
    relay.signal(Signal::TERM);
    let (status, stderr) = relay.end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.starts_with("ERR:GLOBAL:"), "{stderr}");
    assert!(stderr.contains("/no/such/folder/pid: No such file or directory"), "{stderr}");
}

#[test]
fn log_lines_have_the_form_of_the_c_program() {
    let place = Place::new();
    let relay = place.start(&["-d", "DBUG"]);
    relay.ask("U call-7 127.0.0.1 4000 from");
    relay.signal(Signal::TERM);
    let (_, stderr) = relay.end();
    for line in stderr.lines() {
        let parts: Vec<_> = line.splitn(5, ':').collect();
        assert!(["DBUG", "INFO", "WARN", "ERR", "CRIT"].contains(&parts[0]), "{line}");
        assert!(["GLOBAL", "call-7"].contains(&parts[1]), "{line}");
        assert!(parts[2].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        assert!(parts[3].parse::<u32>().is_ok() && parts[4].starts_with(' '), "{line}");
    }
    assert!(stderr.contains("received command \"U call-7 127.0.0.1 4000 from\""), "{stderr}");
    assert!(stderr.contains(r#"sending reply "20040107\n""#), "{stderr}");
    assert!(stderr.contains(":call-7:"), "{stderr}");
}

/// The pid is written after the control sockets are served.
fn wait_for_pid(path: &Path, relay: &Running) {
    let line = format!("{}\n", relay.pid());
    until("the pid is written", || fs::read_to_string(path).is_ok_and(|text| text == line));
}
