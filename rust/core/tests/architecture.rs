//! Rules about the code that the compiler does not check (rust/ARCHITECTURE.md).

use std::fs;
use std::path::{Path, PathBuf};

/// Crates, each with those that it may use: `py → cli → relay, analysis → core`.
const MAY_USE: [(&str, &[&str]); 5] = [
    ("core", &[]),
    ("relay", &["rtpproxy-core"]),
    ("analysis", &["rtpproxy-core"]),
    ("cli", &["rtpproxy-core", "rtpproxy-relay", "rtpproxy-analysis"]),
    ("py", &["rtpproxy-core", "rtpproxy-relay", "rtpproxy-analysis", "rtpproxy"]),
];

fn rust() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core lies in rust/").to_owned()
}

#[test]
fn crates_are_used_in_one_direction_only() {
    for (krate, allowed) in MAY_USE {
        let manifest = fs::read_to_string(rust().join(krate).join("Cargo.toml")).expect("a manifest");
        // Tests of the recorder read with the readers.
        let manifest = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in manifest.lines().filter(|line| line.starts_with("rtpproxy")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{krate} must not use {name}");
        }
    }
}

#[test]
fn the_core_has_no_clock_no_thread_no_socket_and_no_file() {
    for (path, text) in sources(&rust().join("core/src")) {
        for banned in
            ["Instant::now", "SystemTime::now", "thread::", "UdpSocket", "TcpStream", "fs::", "tokio"]
        {
            assert!(!code(&text).contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn unsafe_code_lives_in_its_leaves() {
    let leaves = ["relay/src/io/sys.rs", "cli/src/daemon/sys.rs"];
    for (path, text) in sources(&rust()) {
        // Libraries in C that the operator has are called from one folder.
        let is_leaf = leaves.iter().any(|leaf| path.ends_with(leaf))
            || path.starts_with(rust().join("analysis/src/native"));
        let uses = code(&text).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        assert!(is_leaf || !uses, "{} has unsafe code", path.display());
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources(&rust()) {
        let lines = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().lines().count();
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        assert!(is_test || lines <= 600, "{} has {lines} lines", path.display());
    }
}

#[test]
fn functions_stay_readable() {
    for (path, text) in sources(&rust()) {
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        for (from, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if is_test || !line.split(' ').any(|word| word == "fn") || line.trim_start().starts_with("//") {
                continue;
            }
            // rustfmt closes a function at the indent of its first line.
            let end = format!("{}}}", &line[..indent]);
            let length = 1 + lines[from..].iter().position(|line| *line == end).unwrap_or_default();
            let name = line.trim();
            assert!(length <= 70 || line.ends_with(';'), "{}: `{name}` has {length} lines", path.display());
        }
    }
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{} has no sources", folder.display());
    found
}

/// The text without its comments and tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}
