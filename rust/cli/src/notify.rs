//! Notification targets (`-n`).

use rtpproxy_core::config::NotifySpec;
use rtpproxy_relay::notifier::parse_target;

/// Reads all `-n`. `names`: host names may be resolved.
pub(crate) fn targets(texts: &[String], names: bool) -> Result<Vec<NotifySpec>, String> {
    let mut specs = Vec::with_capacity(texts.len());
    for text in texts {
        if text.starts_with("fd:") {
            return Err(format!(
                "error adding timeout notification: {text}: descriptors are for in-process use"
            ));
        }
        specs.push(parse_target(text, names)?);
    }
    let callers = specs.iter().filter(|spec| matches!(spec, NotifySpec::Caller { .. })).count();
    if callers > CALLERS_MAX || specs.len() - callers > FIXED_MAX {
        return Err(format!(
            "error adding timeout notification: more than {FIXED_MAX} targets, or more than {CALLERS_MAX} that \
             name the caller"
        ));
    }
    Ok(specs)
}

const FIXED_MAX: usize = 64;
const CALLERS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use rtpproxy_core::command::NotifyTarget;

    use super::*;

    fn one(text: &str) -> Result<NotifySpec, String> {
        targets(&[text.to_owned()], false).map(|mut specs| specs.remove(0))
    }

    #[test]
    fn targets_keep_the_text_that_names_them() {
        let unix = |name: &str| NotifySpec::Fixed {
            name: name.as_bytes().into(),
            target: NotifyTarget::Unix((*b"/run/n.sock").into()),
        };
        assert_eq!(one("unix:/run/n.sock").unwrap(), unix("unix:/run/n.sock"));
        assert_eq!(one("/run/n.sock").unwrap(), unix("/run/n.sock"));
        let tcp = NotifyTarget::Tcp { to: "127.0.0.1:9000".parse().unwrap(), from: None };
        let name = "tcp:127.0.0.1:9000".as_bytes().into();
        assert_eq!(one("tcp:127.0.0.1:9000").unwrap(), NotifySpec::Fixed { name, target: tcp });
        let name = "tcp:%%CC_SELF%%:9000".as_bytes().into();
        assert_eq!(one("tcp:%%CC_SELF%%:9000").unwrap(), NotifySpec::Caller { name, port: 9000 });
    }

    #[test]
    fn bad_targets_are_refused() {
        assert_eq!(one("").unwrap_err(), "timeout notification socket name too short");
        let long = format!("unix:/{}", "x".repeat(107));
        for text in
            ["tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:x", "tcp:host:1", "fd:3", "unix:", &long]
        {
            assert!(one(text).unwrap_err().starts_with("error adding timeout notification: "), "{text}");
        }
        assert!(targets(&vec!["/a".to_owned(); 65], false).is_err());
        assert!(targets(&vec!["tcp:%%CC_SELF%%:1".to_owned(); 3], false).is_err());
        assert_eq!(targets(&vec!["/a".to_owned(); 64], false).unwrap().len(), 64);
    }
}
