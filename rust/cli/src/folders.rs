//! Folders of recordings, and the like of them for what is made of recordings.

use std::path::{Path, PathBuf};

/// The folder below `output` that is to `output` what the folder of `file` is to that of `given` which has led to it;
/// `output` itself if `file` was named.
pub(crate) fn mirrored(output: &Path, given: &[PathBuf], file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    let below = given.iter().filter(|path| path.is_dir()).filter_map(|path| folder.strip_prefix(path).ok());
    // Of several folders that are given, the innermost one.
    let below = below.min_by_key(|below| below.as_os_str().len());
    // Nothing is joined, lest the path get a slash at its end.
    below
        .filter(|below| !below.as_os_str().is_empty())
        .map_or_else(|| output.to_owned(), |below| output.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_below_what_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("2026/03")).unwrap();
        let file = root.join("2026/03/a.pcapng");
        std::fs::write(&file, b"").unwrap();
        let of = |given: &[PathBuf]| mirrored(Path::new("out"), given, &file);
        assert_eq!(of(&[root.to_owned()]), Path::new("out/2026/03"));
        assert_eq!(of(&[root.to_owned(), root.join("2026/")]), Path::new("out/03"));
        assert_eq!(of(&[root.join("2026/03")]).as_os_str(), "out");
        assert_eq!(of(std::slice::from_ref(&file)), Path::new("out"));
    }
}
