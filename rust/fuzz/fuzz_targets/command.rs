//! Whatever is accepted as a command is written as text that means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::command::{AnyRules, parse, split_cookie};

fuzz_target!(|text: &[u8]| {
    if let Ok(command) = parse(text, &mut AnyRules) {
        assert_eq!(command.check(), Ok(()), "{command:?}");
    }
    if let Some((cookie, command)) = split_cookie(text) {
        assert!(!cookie.is_empty() && cookie.len() + command.len() <= text.len());
        let _ = parse(command, &mut AnyRules);
    }
});
