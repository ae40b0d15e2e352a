//! `rtpproxy bench`: that it runs, and that its figures fit together. What they are is the machine's affair.

mod support;

use std::fs;

use serde_json::Value;
use support::{binary, run};

#[test]
fn its_figures_fit_together_and_nothing_stays_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = binary()
        .args([
            "bench",
            "--calls",
            "4",
            "--seconds",
            "1",
            "--rounds",
            "1",
            "--workers",
            "1",
            "--json",
            "--dir",
        ])
        .arg(folder.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["options"]["calls"], &report["options"]["workers"]), (&4.into(), &1.into()));
    assert!(report["ratio"]["median"].as_f64().unwrap() > 0.0, "{stdout}");
    let rounds = report["rounds"].as_array().unwrap();
    let kinds: Vec<_> = rounds.iter().map(|round| round["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["plain", "recorded"]);
    for round in rounds {
        let number = |name: &str| round[name].as_u64().unwrap();
        // Three seconds of eight phones, when nothing holds them up.
        assert!(number("sent") > number("packets") && number("packets") > 0, "{stdout}");
        assert!(number("sent") >= 8 * 100, "{stdout}");
        assert_eq!((number("heard"), number("relayed")), (number("sent"), number("sent")), "{stdout}");
        let cpu = |name: &str| round["cpu"][name].as_f64().unwrap();
        assert!(cpu("all") > 0.0 && cpu("all") * 1.05 >= cpu("media") + cpu("recorder"), "{stdout}");
        assert_eq!(round["kind"] == "recorded", cpu("recorder") > 0.0, "{stdout}");
    }
    assert_eq!(rounds[0]["recorded"], Value::Null);
    assert_eq!(rounds[1]["recorded"], rounds[1]["sent"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_it_cannot_use_is_named() {
    let output = run(&["bench", "--dir", "/nonexistent/folder"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("rtpproxy: bench: /nonexistent/folder: "));
    for args in [&["bench", "--calls", "0"][..], &["bench", "--seconds", "-1"], &["bench", "extra"]] {
        assert_eq!(run(args).status.code(), Some(1), "{args:?}");
    }
}
