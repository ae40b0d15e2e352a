//! Log levels and syslog facilities, by the names of the command line.

/// A log level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Every command and reply.
    Dbug,
    /// Sessions and recordings as they come and go.
    Info,
    /// What may need a look.
    Warn,
    /// What failed.
    #[default]
    Err,
    /// What ends the process.
    Crit,
}

impl Level {
    /// Reads a name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Dbug, Self::Info, Self::Warn, Self::Err, Self::Crit]
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// The name in a log line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dbug => "DBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Err => "ERR",
            Self::Crit => "CRIT",
        }
    }

    /// The level of an event that says nothing else.
    pub(super) fn of(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Self::Err,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            _ => Self::Dbug,
        }
    }

    /// The least severe level of events that can show at this level.
    pub(super) fn least(self) -> tracing::Level {
        match self {
            Self::Dbug => tracing::Level::DEBUG,
            Self::Info => tracing::Level::INFO,
            Self::Warn => tracing::Level::WARN,
            Self::Err | Self::Crit => tracing::Level::ERROR,
        }
    }

    /// The severity of [RFC 5424 section 6.2.1](https://www.rfc-editor.org/rfc/rfc5424#section-6.2.1).
    pub(super) fn severity(self) -> u8 {
        match self {
            Self::Dbug => 7,
            Self::Info => 6,
            Self::Warn => 4,
            Self::Err => 3,
            Self::Crit => 2,
        }
    }
}

/// A syslog facility, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facility(pub(super) u8);

impl Facility {
    /// Reads a name, in any case, with or without `LOG_` before it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("LOG_").unwrap_or(&upper);
        FACILITIES.iter().find(|(known, _)| *known == short).map(|(_, number)| Self(*number))
    }
}

impl Default for Facility {
    fn default() -> Self {
        Self(3)
    }
}

const FACILITIES: &[(&str, u8)] = &[
    ("KERN", 0),
    ("USER", 1),
    ("MAIL", 2),
    ("DAEMON", 3),
    ("AUTH", 4),
    ("SYSLOG", 5),
    ("LPR", 6),
    ("NEWS", 7),
    ("UUCP", 8),
    ("CRON", 9),
    ("AUTHPRIV", 10),
    ("FTP", 11),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(Level::parse("dbug"), Some(Level::Dbug));
        assert_eq!(Level::parse("Crit"), Some(Level::Crit));
        assert_eq!(Level::parse("debug"), None);
        assert_eq!(Facility::parse("LOG_LOCAL3"), Some(Facility(19)));
        assert_eq!(Facility::parse("local3"), Some(Facility(19)));
        assert_eq!(Facility::parse("local8"), None);
    }
}
