//! Sessions: commands, packets and time in, replies and effects out.
