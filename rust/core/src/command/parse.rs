//! Text to [`Command`].

use super::{Command, ErrorCode, Modifier, Modifiers};

/// The rules that depend on the configuration, asked at the place where the protocol checks them.
pub trait Rules {
    /// May `modifier` stand behind the `earlier` ones? E11, E12, E31, E32.
    fn modifier(&mut self, earlier: &[Modifier], modifier: &Modifier) -> Result<(), ErrorCode>;

    /// Is there a local address of the family that `modifiers` ask for? E36.
    fn family(&mut self, modifiers: &Modifiers) -> Result<(), ErrorCode>;
}

/// Accepts everything that the grammar does.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyRules;

impl Rules for AnyRules {
    fn modifier(&mut self, _earlier: &[Modifier], _modifier: &Modifier) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn family(&mut self, _modifiers: &Modifiers) -> Result<(), ErrorCode> {
        Ok(())
    }
}

/// Parses one command. The whole request is consumed, or an error code says why not.
pub fn parse(text: &[u8], rules: &mut dyn Rules) -> Result<Command, ErrorCode> {
    let _ = (text, rules);
    Err(ErrorCode::UNKNOWN_COMMAND)
}
