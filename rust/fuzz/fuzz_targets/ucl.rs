//! Any text is an object, which a line end more does not change, or has its first fault at a place in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ucl::Position;

// The command is large, and this part of it stands alone.
#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../../cli/src/ucl/mod.rs"]
mod ucl;

fuzz_target!(|text: &str| {
    match ucl::parse(text) {
        Ok(object) => assert_eq!(ucl::parse(&format!("{text}\n")), Ok(object)),
        Err(error) => {
            assert!(text.is_char_boundary(error.at), "{error:?}");
            let place = Position::of(text, error.at);
            assert!(place.line <= text.lines().count().max(1) + 1, "{error:?} at {place}");
        }
    }
});
