//! Settings from a file and from the environment, and what `--check` says of them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;
use support::{Place, Running, binary};

/// `--check` in `place` with these arguments and variables.
fn check(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = binary();
    command.args(["--check", "-F"]).args(args).envs(variables.iter().copied());
    command.current_dir(place.folder.path()).output().unwrap()
}

/// The lines of a `--check` that must go well, their blanks made single.
fn in_force(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let output = check(place, args, variables);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The lines on standard error of a `--check` that must not go well.
fn refused(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let output = check(place, args, variables);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().map(Into::into).collect()
}

fn assert_line(lines: &[String], line: &str) {
    assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
}

#[test]
fn the_line_comes_before_the_environment_and_that_before_the_file() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "ttl = 1\nsetup_ttl = 2\ntos = 3\nnotify = ['/a', '/b']\n").unwrap();
    let lines = in_force(
        &place,
        &["--settings", "s.toml", "-T", "10", "-s", "/x"],
        &[("RTPPROXY_TTL", "20"), ("RTPPROXY_SETUP_TTL", "20"), ("RTPPROXY_CONTROL", "/y /z")],
    );
    for line in [
        "ttl = 10 # command line: -T",
        "setup_ttl = 20 # environment: RTPPROXY_SETUP_TTL",
        "tos = 3 # s.toml:3",
        "notify = [\"/a\", \"/b\"] # s.toml:4",
        "control = [\"/x\"] # command line: -s",
        "port_min = 35000 # default",
        "# settings = \"s.toml\" # command line: --settings",
        "# user is not set",
    ] {
        assert_line(&lines, line);
    }
}

#[test]
fn a_variable_turns_off_what_the_file_turns_on() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "compat = true\nrecord_all = true").unwrap();
    let variables = [("RTPPROXY_SETTINGS", "s.toml"), ("RTPPROXY_COMPAT", "0"), ("RTPPROXY_RECORD_ALL", "")];
    let lines = in_force(&place, &[], &variables);
    assert_line(&lines, "compat = false # environment: RTPPROXY_COMPAT");
    assert_line(&lines, "latch = \"nat\" # default");
    assert_line(
        &lines,
        "record_all = true # s.toml:2".replace("s.toml", place.path("s.toml").to_str().unwrap()).as_str(),
    );
}

#[test]
fn what_follows_from_other_settings_is_shown() {
    let place = Place::new();
    let folder = place.path("").to_str().unwrap().to_owned();
    let lines = in_force(&place, &["--compat", "-T", "7", "-r", &folder, "--preroll", "30"], &[]);
    for line in [
        "latch = \"legacy\" # because of compat",
        "record_format = \"adhoc\" # because of compat",
        "record_scope = \"stream\" # because of compat",
        "setup_ttl = 7 # because of ttl",
        "preroll_memory = \"256M\" # because of preroll",
    ] {
        assert_line(&lines, line);
    }
}

#[test]
fn modules_are_checked_and_shown() {
    let place = Place::new();
    fs::write(place.path("m.conf"), "modules { catch_dtmf {} }").unwrap();
    let lines = in_force(&place, &["--config", "m.conf"], &[("RTPPROXY_DSO", "acct_csv")]);
    assert_line(&lines, "dso = [\"acct_csv\"] # environment: RTPPROXY_DSO");
    assert_line(&lines, "# modules in force = [\"acct_csv\", \"catch_dtmf\"] # because of config, dso");
    assert!(!place.path("rtpproxy_acct.csv").exists());
    let section = "modules { acct_rtcp_hep { capt_host = localhost; capt_ptype = TCP; capt_id = 7 } }";
    fs::write(place.path("m.conf"), section).unwrap();
    let lines = in_force(&place, &["--config", "m.conf"], &[]);
    let module = "acct_rtcp_hep to tcp:localhost:9060 as 7";
    assert_line(&lines, &format!("# modules in force = [\"{module}\"] # because of config, dso"));
    let refusal = refused(&place, &["--config", "m.conf", "--no_resolve"], &[]);
    assert!(refusal[0].contains("tcp:localhost:9060: not a numeric address"), "{refusal:?}");
    fs::write(place.path("m.conf"), "modules { catch_dtmf { volume = 11 } }").unwrap();
    assert!(refused(&place, &["--config", "m.conf"], &[])[0].contains("volume"));
}

#[test]
fn of_two_options_for_one_thing_the_stronger_place_decides() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "pcap = true").unwrap();
    let lines = in_force(&place, &["--settings", "s.toml", "--record-format", "adhoc"], &[]);
    assert_line(&lines, "pcap = false # default");
    let lines = in_force(&place, &["-P"], &[("RTPPROXY_RECORD_FORMAT", "adhoc")]);
    assert_line(&lines, "record_format = \"pcap\" # because of pcap");
    assert_eq!(refused(&place, &["-P", "--record-format", "adhoc"], &[]).len(), 1);
}

#[test]
fn what_is_printed_is_a_settings_file_that_says_the_same() {
    let place = Place::new();
    let args = [
        "-l",
        "127.0.0.1",
        "-6",
        "six@::1=host.example",
        "-m",
        "12000",
        "-s",
        "udp:127.0.0.1:7000",
        "-s",
        "/a \"b\"\\c",
        "-d",
        "info:local3",
        "-r",
        "/calls",
        "--compat",
        "-w",
        "432",
        "--codec-map",
        "111=opus/48000/2",
        "--nice",
        "-5",
        "-L",
        "+512",
        "--overload_prot=x",
        "-f",
    ];
    let first = check(&place, &args, &[]);
    fs::write(place.path("s.toml"), &first.stdout).unwrap();
    let second = check(&place, &["--settings", "s.toml"], &[]);
    assert_eq!((first.status.code(), second.status.code()), (Some(0), Some(0)), "{second:?}");
    let settings = |output: &Output| -> Vec<String> {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split("  # ").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(settings(&first), settings(&second));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "ttl = 0\n\nrecord-ns = true\ntos = 'x'\nlog = 'loud'\n").unwrap();
    let variables = [("RTPPROXY_WORKERS", "many"), ("RTPPROXY_COMPAT", "maybe")];
    let mut lines = refused(&place, &["--settings", "s.toml", "-T", "5"], &variables);
    lines.sort();
    assert_eq!(
        lines,
        [
            "rtpproxy: RTPPROXY_COMPAT: maybe: neither 0 nor 1",
            "rtpproxy: RTPPROXY_WORKERS: many: number of workers is invalid",
            "rtpproxy: s.toml:1: ttl: 0: max TTL argument is invalid",
            "rtpproxy: s.toml:3: record-ns: unknown key; is record_ns meant?",
            "rtpproxy: s.toml:4: tos: expected an integer, found a string",
            "rtpproxy: s.toml:5: log: loud: invalid log level",
        ]
    );
    fs::write(place.path("s.toml"), "ttl = 1\nttl = 2\n").unwrap();
    assert!(
        refused(&place, &["--settings", "s.toml"], &[])[0].starts_with("rtpproxy: s.toml:2:1: duplicate key")
    );
    assert_eq!(
        refused(&place, &["--settings", "none.toml"], &[]),
        ["rtpproxy: none.toml: can't read the settings: No such file or directory"]
    );
    fs::write(place.path("s.toml"), b"log = '\xff'").unwrap();
    assert!(refused(&place, &["--settings", "s.toml"], &[])[0].contains("s.toml: can't read the settings: "));
    fs::write(place.path("s.toml"), "spool_dir = '/tmp'\n").unwrap();
    assert_eq!(refused(&place, &["--settings", "s.toml"], &[]), ["rtpproxy: -S switch requires -r switch"]);
}

#[test]
fn an_empty_list_is_as_good_as_none() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "control = []\nlisten6 = []\nnotify = ['/a']\n").unwrap();
    let lines = in_force(&place, &["--settings", "s.toml"], &[("RTPPROXY_NOTIFY", ",")]);
    for line in [
        "control = [\"unix:/var/run/rtpproxy.sock\"] # default",
        "listen = [\"*\"] # default",
        "# listen6 is not set",
        "# notify is not set",
    ] {
        assert_line(&lines, line);
    }
}

#[test]
fn a_check_opens_nothing() {
    let place = Place::new();
    let lines =
        in_force(&place, &["-s", "unix:control", "-p", "pid", "-r", "/no/such/folder", "-L", "9"], &[]);
    assert_line(&lines, "control = [\"unix:control\"] # command line: -s");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_daemon_obeys_its_file_and_its_environment() {
    let place = Place::new();
    let text = "listen = '127.0.0.1=192.0.2.7'\ncontrol = ['unix:control.sock']\npid_file = 'pid'\nforeground = true\n\
                allow_root = true\nlog = 'dbug'\nworkers = 1\n";
    fs::write(place.path("s.toml"), text).unwrap();
    let mut command: Command = binary();
    command.args(["--settings", "s.toml"]).current_dir(place.folder.path());
    command.envs([("RTPPROXY_LOG", "warn"), ("RTPPROXY_TLL", "1")]);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let relay = Running::wait_for(command.spawn().unwrap(), place.socket());
    assert!(relay.ask("U call 127.0.0.1 4000 from").ends_with(" 192.0.2.7\n"));
    relay.signal(Signal::TERM);
    let (status, log) = relay.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.starts_with("WARN:GLOBAL:")
            && log.contains("RTPPROXY_TLL has no meaning here; is RTPPROXY_TTL meant?")
    );
    assert!(!place.pid_file().exists());
}

#[test]
fn the_sample_is_right() {
    let place = Place::new();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/rtpproxy.toml");
    let lines = in_force(&place, &["--settings", sample], &[]);
    assert!(lines.iter().any(|line| line.starts_with("log = \"info:daemon\" # ")), "{lines:#?}");
    // So are the lines that it leaves to the reader.
    let text = fs::read_to_string(sample).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = ")) {
        // Some need a user or a right.
        if ["user", "control_mode", "listen"].iter().any(|key| line.starts_with(key)) {
            continue;
        }
        // Others a folder to record into.
        let records = line.starts_with("record_") || line.starts_with("preroll");
        let needs_folder = records && !line.starts_with("record_dir");
        let folder = if needs_folder { "record_dir = '/tmp'\n" } else { "" };
        let layout = if line.starts_with("record_segment") { "record_layout = 'journal'\n" } else { "" };
        fs::write(place.path("line.toml"), format!("{folder}{layout}{line}")).unwrap();
        in_force(&place, &["--settings", "line.toml"], &[]);
    }
}

#[test]
fn every_setting_is_in_the_manual() {
    let place = Place::new();
    let manual =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let mut keys = 0;
    for line in in_force(&place, &[], &[]) {
        let line = line.trim_start_matches("# ");
        let Some(key) = line.split_once(" = ").map(|(key, _)| key).or(line.strip_suffix(" is not set"))
        else {
            continue;
        };
        let variable = format!("`RTPPROXY_{}`", key.to_uppercase());
        assert!(manual.contains(&variable), "{variable}");
        assert!(key == "settings" || manual.contains(&format!("| `{key}` | {variable} |")), "{key}");
        keys += 1;
    }
    assert!(keys > 40, "{keys}");
}
