//! `rtpproxy demo`.

mod support;

use std::fs;

use support::{binary, run};

#[test]
fn a_call_is_held_recorded_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let calls = folder.path().join("calls");
    let output = binary().args(["demo", "--seconds", "2"]).current_dir(folder.path()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    assert!(stdout.contains("Every packet arrived, and the recording holds them all."), "{stdout}");
    assert!(stdout.contains("nrelayed=200"), "{stdout}");
    let mut names: Vec<_> =
        fs::read_dir(calls).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("demo-") && names[0].ends_with(".json"), "{names:?}");
    assert!(names[1].starts_with("demo-") && names[1].ends_with(".pcapng"), "{names:?}");
    assert!(stdout.contains(&names[1]), "{stdout}");
}

#[test]
fn every_latching_mode_carries_the_call() {
    let folder = tempfile::tempdir().unwrap();
    for mode in ["strict", "legacy"] {
        let output = binary()
            .args(["demo", "--seconds", "1", "--latch", mode, "--dir"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{mode}: {output:?}");
    }
}

#[test]
fn bad_arguments_end_with_one() {
    for args in [&["demo", "--seconds", "0"][..], &["demo", "--latch", "open"], &["demo", "extra"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let output = binary().args(["demo", "--seconds", "1", "--dir"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("rtpproxy: demo: ") && stderr.contains(file.to_str().unwrap()), "{stderr}");
}
