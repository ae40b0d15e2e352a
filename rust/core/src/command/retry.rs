//! The reply cache of the datagram transports.

/// Remembers replies by cookie.
#[derive(Debug, Default)]
pub struct ReplyCache {}
