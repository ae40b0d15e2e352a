//! Asking the relay.

use std::time::Duration;

use rtpproxy_core::command::{AnyRules, Command, Reply, ReplyKind, SubResult, parse};
use rtpproxy_core::stats::COUNTERS;
use rtpproxy_relay::client::{Client, ClientError, ClientOptions};
use serde::Deserialize;
use serde_json::Value;

use super::show::Form;

/// A relay that answers.
pub(super) struct Dialog {
    client: Client,
    socket: String,
}

impl Dialog {
    pub(super) fn connect(socket: &str, timeout: Duration) -> Result<Self, ClientError> {
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        Ok(Self { client: Client::connect(socket, options)?, socket: socket.to_owned() })
    }

    /// The control socket, as it was given.
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// Gives `text` as a command. Where the reply is to be read by people or programs, a `G` without names asks
    /// for every counter.
    pub(super) fn ask(&mut self, text: &[u8], form: Form) -> Result<Exchange, ClientError> {
        if text.trim_ascii() == RECORDINGS {
            return self.all_recordings(text);
        }
        let command = parse(text, &mut AnyRules).ok();
        if let Some(Command::Counters { verbose, names }) = &command
            && names.is_empty()
            && form != Form::Raw
        {
            return self.all_counters(text, *verbose);
        }
        let kind = command.map(|command| command.reply_kind());
        let bytes = self.client.command(text, kind.as_ref())?;
        Ok(Exchange::new(text, bytes, kind.as_ref()))
    }

    /// All recordings, asked for in as many requests as it takes.
    fn all_recordings(&mut self, text: &[u8]) -> Result<Exchange, ClientError> {
        let mut recordings = Vec::new();
        let mut after = 0;
        loop {
            let page = match self.client.call(&Command::Recordings { after })? {
                Reply::Recordings(page) => page,
                refusal => return Ok(Exchange::of(text, refusal)),
            };
            let page: Page = serde_json::from_str(&page).map_err(|_| ClientError::BadReply {
                address: self.socket.clone(),
                reply: page.chars().take(SHOWN_MAX).collect(),
            })?;
            let last = page.recordings.last().and_then(|recording| recording["number"].as_u64());
            recordings.extend(page.recordings);
            match last {
                Some(last) if page.more && last > after => after = last,
                _ => return Ok(Exchange::of_recordings(text, recordings)),
            }
        }
    }

    fn all_counters(&mut self, text: &[u8], verbose: bool) -> Result<Exchange, ClientError> {
        let mut figures = Vec::new();
        for names in COUNTERS.chunks(NAMES_MAX) {
            let names = names.iter().map(|name| name.as_bytes().into()).collect();
            match self.client.call(&Command::Counters { verbose, names })? {
                Reply::Counters { values, .. } => figures.extend(values),
                refusal => return Ok(Exchange::of(text, refusal)),
            }
        }
        Ok(Exchange::of(text, Reply::Counters { verbose, values: figures }))
    }
}

/// What `?recordings` answers.
#[derive(Debug, Deserialize)]
struct Page {
    recordings: Vec<Value>,
    more: bool,
}

/// A command and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    /// As it was given.
    pub(super) command: Vec<u8>,
    /// The reply as it came.
    pub(super) bytes: Vec<u8>,
    /// What it means, if it can be understood.
    pub(super) reply: Option<Reply>,
    /// The recordings, if those were asked for.
    pub(super) recordings: Option<Vec<Value>>,
}

impl Exchange {
    pub(super) fn new(command: &[u8], bytes: Vec<u8>, kind: Option<&ReplyKind>) -> Self {
        // What is no command is answered with an error, which is read as any kind.
        let reply = Reply::parse(&bytes, kind.unwrap_or(&ReplyKind::Done)).ok();
        Self { command: command.to_owned(), bytes, reply, recordings: None }
    }

    fn of(command: &[u8], reply: Reply) -> Self {
        Self { command: command.to_owned(), bytes: reply.encode(), reply: Some(reply), recordings: None }
    }

    /// With a line of JSON for each recording.
    fn of_recordings(command: &[u8], recordings: Vec<Value>) -> Self {
        let bytes = recordings.iter().flat_map(|recording| format!("{recording}\n").into_bytes()).collect();
        Self { command: command.to_owned(), bytes, reply: None, recordings: Some(recordings) }
    }

    /// False if the command, or one of its sub-commands, was refused.
    pub(super) fn is_done(&self) -> bool {
        match &self.reply {
            Some(Reply::Results { subs, .. }) => !subs.contains(&SubResult::Failed),
            Some(reply) => !reply.is_error(),
            None => true,
        }
    }
}

/// What lists recordings: a word of ours for `?recordings`.
pub(super) const RECORDINGS: &[u8] = b"recordings";
/// What is shown of a reply that cannot be understood.
const SHOWN_MAX: usize = 200;
/// Counters that one `G` can name.
const NAMES_MAX: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_told_from_what_was_done() {
        let lookup = ReplyKind::Lookup;
        for (text, kind, done) in [
            (&b"0\n"[..], Some(&ReplyKind::Done), true),
            (b"E50\n", Some(&ReplyKind::Done), false),
            (b"E0\n", None, false),
            (b"0\n", Some(&lookup), false),
            (b"35000 192.0.2.1\n", Some(&lookup), true),
            (b"35000 192.0.2.1 && 0 && x\n", Some(&lookup), true),
            (b"35000 192.0.2.1 && -1\n", Some(&lookup), false),
            (b"something new\n", Some(&lookup), true),
        ] {
            assert_eq!(Exchange::new(b"x", text.to_vec(), kind).is_done(), done, "{text:?}");
        }
    }
}
