//! The error replies.

use std::fmt;

/// A code of the protocol's error replies: `E` and this number (docs/protocol.md, error codes).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(#[doc = concat!("E", stringify!($code), ": ", $text, ".")]
            pub const $name: Self = Self($code);)*

            /// What the code means, in a few words.
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown error",
                }
            }
        }
    };
}

codes! {
    UNKNOWN_COMMAND = 0, "unknown command letter";
    ARGUMENT_COUNT = 1, "wrong number of arguments";
    MODIFIER_NOT_TAKEN = 2, "the command takes no modifier";
    SUB_COMMAND = 3, "sub-command not allowed here, unknown or malformed";
    TOKEN = 5, "empty command, NUL byte or too many tokens";
    MODIFIER_ORDER = 6, "modifier not allowed here";
    RECORD_MODIFIER = 7, "bad modifier of N, R or C";
    DELETE_MODIFIER = 8, "bad modifier of D";
    COUNTERS_MODIFIER = 9, "bad modifier of G";
    NOTIFY_TAG = 10, "bad URL encoding in the notify tag";
    EXTERNAL = 11, "e without bridge mode, or too many direction letters";
    INTERNAL = 12, "i without bridge mode, or too many direction letters";
    REPACKETIZE = 13, "bad z";
    CODECS = 14, "bad or repeated c";
    LOCAL_SYNTAX = 15, "bad address after l";
    ROUTE_SYNTAX = 16, "bad address after r";
    PLAY_COUNT = 17, "bad count of P";
    INFO_MODIFIER = 18, "bad modifier of I";
    QUERY_MODIFIER = 19, "bad modifier of Q";
    COUNTERS_TOO_LONG = 25, "the reply of G is too long";
    QUERY_TOO_LONG = 26, "the reply of Q is too long";
    LOCAL_UNKNOWN = 31, "unknown label or address after l";
    NO_ROUTE = 32, "no route to the address after r";
    MODIFIER = 35, "unknown modifier, or no codec list stored";
    NO_LOCAL_ADDRESS = 36, "no local address of that family";
    MEDIA_ADDRESS = 37, "address or port cannot be parsed";
    NOT_FOUND = 50, "session or stream not found";
    PLAYER = 60, "the player could not be created";
    UNKNOWN_STAT = 62, "unknown statistic";
    RECORD_TARGET = 65, "the copy or record target failed";
    UNKNOWN_COUNTER = 68, "unknown counter";
    NO_PORT_OTHER_SIDE = 71, "no ports for the other side";
    NO_PORT = 72, "the session cannot be created: no ports, or the address cannot be bound";
    NO_NOTIFY = 75, "notify arguments, but no notification target is configured";
    INTERNAL_FAILURE = 81, "out of memory or an internal failure";
    DRAINING = 99, "no new sessions: the relay is shutting down";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{} ({})", self.0, self.text())
    }
}
