//! The prompt: a line editor with history and completion.

use std::env;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rtpproxy_core::command::CAPABILITIES;
use rtpproxy_relay::client::ClientError;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::dialog::Dialog;
use super::fault::{Fault, explained};
use super::guide::{self, COMMANDS, COUNTERS, FIGURES, SUB_COMMANDS};
use super::show::{self, Form};

/// Reads commands from a person until the end of the input.
///
/// A command without a reply is told and does not end it, but for the first, which finds out whether a relay is
/// there.
pub(super) fn prompt(dialog: &mut Dialog, form: Form) -> Result<bool, Fault> {
    dialog.ask(b"V", form)?;
    let mut editor = editor().map_err(|error| Fault::Input(format!("cannot use this terminal: {error}")))?;
    let mut history = history_path();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    writeln!(io::stdout(), "Connected to {}. help lists the commands, Ctrl-D ends.", dialog.socket())?;
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                let line = line.trim();
                if line.is_empty() {
                    continue;
                }
                // Only a history that is switched off refuses entries.
                let _ = editor.add_history_entry(line);
                // At once: who knows how this ends.
                history = history.filter(|path| keep(&mut editor, path));
                if !obey(line, dialog, form)? {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Fault::Input(format!("cannot read the terminal: {error}"))),
        }
    }
    Ok(true)
}

/// Does what a line says; false to end.
fn obey(line: &str, dialog: &mut Dialog, form: Form) -> Result<bool, Fault> {
    let mut words = line.split_ascii_whitespace();
    match words.next().unwrap_or_default() {
        "quit" | "exit" => return Ok(false),
        "help" | "?" => io::stdout().write_all(guide::help(words.next().unwrap_or_default()).as_bytes())?,
        _ => match dialog.ask(line.as_bytes(), form) {
            Ok(exchange) => show::print(&exchange, form)?,
            Err(error) => complain(&error),
        },
    }
    Ok(true)
}

fn complain(error: &ClientError) {
    let _ = writeln!(io::stderr(), "{}", explained(error));
}

type CommandEditor = Editor<Completion, FileHistory>;

fn editor() -> rustyline::Result<CommandEditor> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .completion_type(CompletionType::List)
        .completion_prompt_limit(COUNTERS.len() + 1)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Completion));
    Ok(editor)
}

/// Where the history is kept: in the folder that users have for such files, if there is one.
fn history_path() -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("rtpproxy").join("ctl-history"))
}

/// Adds the last lines to the file; false, once told, if that is not possible.
fn keep(editor: &mut CommandEditor, path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let kept = made.map_err(ReadlineError::from).and_then(|()| editor.append_history(path));
    if let Err(error) = &kept {
        crate::complain(&format!("ctl: the history is not kept: {}: {error}", path.display()));
    }
    kept.is_ok()
}

/// Completes command letters, names of counters, capabilities and sub-commands.
#[derive(Debug)]
struct Completion;

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = &line[..at];
        let start = line.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let words: Vec<&str> = line[..start].split_whitespace().collect();
        let begun = &line[start..];
        let mut found = candidates(&words);
        // Letters may be of either case, names may not.
        let is_letter = words.is_empty() || words == ["help"];
        found.retain(|Pair { replacement, .. }| match replacement.get(..begun.len()) {
            Some(head) if is_letter => head.eq_ignore_ascii_case(begun),
            head => head == Some(begun),
        });
        Ok((start, found))
    }
}

/// What may stand behind `words`.
fn candidates(words: &[&str]) -> Vec<Pair> {
    // Where the sub-command begins, if one does.
    let sub = words.iter().rposition(|word| *word == "&&").map(|at| &words[at + 1..]);
    match (sub, words) {
        (Some([]), _) => {
            SUB_COMMANDS.iter().map(|(form, does)| pair(&form[..1], &format!("{form}  {does}"))).collect()
        }
        (Some(["S" | "s" | "Sr" | "sr"]), _) => ["ttl=", "tos="].map(|word| pair(word, word)).to_vec(),
        (Some(_), _) => Vec::new(),
        (None, []) => commands().chain(["help", "quit", "recordings"].map(|word| pair(word, word))).collect(),
        (None, ["help"]) => commands().collect(),
        (None, [verb, behind @ ..]) => match (verb.to_ascii_uppercase().as_bytes(), behind.len()) {
            (b"VF", 0) => {
                CAPABILITIES.iter().map(|(number, what)| pair(number, &format!("{number}  {what}"))).collect()
            }
            ([b'G', ..], _) => names(COUNTERS),
            ([b'Q', ..], 3..) => names(FIGURES),
            _ => Vec::new(),
        },
    }
}

fn commands() -> impl Iterator<Item = Pair> {
    COMMANDS.iter().map(|command| pair(command.name, &format!("{:2}  {}", command.name, command.does)))
}

fn names(table: &[(&str, &str)]) -> Vec<Pair> {
    table.iter().map(|(name, _)| pair(name, name)).collect()
}

fn pair(replacement: &str, display: &str) -> Pair {
    Pair { display: display.to_owned(), replacement: replacement.to_owned() }
}

impl Helper for Completion {}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl Hinter for Completion {
    type Hint = String;
}

const PROMPT: &str = "rtpproxy> ";
/// Lines of history.
const HISTORY_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use rustyline::history::DefaultHistory;

    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let history = DefaultHistory::new();
        let (_, found) = Completion.complete(line, line.len(), &Context::new(&history)).unwrap();
        found.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn letters_and_names_are_completed() {
        assert_eq!(completed("v"), ["V", "VF"]);
        assert_eq!(completed("h"), ["help"]);
        assert_eq!(completed("").len(), COMMANDS.len() + 3);
        assert_eq!(completed("rec"), ["recordings"]);
        assert_eq!(completed("help q"), ["Q"]);
        assert_eq!(
            completed("G npkts_resizer_"),
            ["npkts_resizer_in", "npkts_resizer_out", "npkts_resizer_discard"]
        );
        assert_eq!(completed("Gv pps_in nsess_t"), ["nsess_timeout"]);
        assert_eq!(completed("Qv c f t rtpa_j"), ["rtpa_jlast", "rtpa_jmax", "rtpa_javg"]);
        assert_eq!(completed("VF 2026"), ["20260306", "20260308", "20260309"]);
        assert_eq!(completed("Q c f t && S t"), ["ttl=", "tos="]);
        assert_eq!(completed("Q c f t && "), ["D", "S", "S", "L", "C", "M"]);
        for line in ["Q rtpa_", "Q c f rtpa_", "U n", "G PPS", "nonsense p", "é", "Q c f t && D p"] {
            assert_eq!(completed(line), [""; 0], "{line}");
        }
    }
}
