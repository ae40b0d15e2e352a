//! The numbers of the protocol: decimal, with a sign and leading zeros allowed, nothing behind them.

use std::str;

/// A whole number of 32 bits.
pub(crate) fn signed(text: &[u8]) -> Option<i32> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// A whole number from 1 to `i32::MAX`.
pub(super) fn positive(text: &[u8]) -> Option<u32> {
    u32::try_from(signed(text)?).ok().filter(|&number| number > 0)
}
