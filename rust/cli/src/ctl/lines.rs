//! Files of commands.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::dialog::Dialog;
use super::fault::Fault;
use super::show::{self, Form};

/// Gives the commands in the file at `path`.
pub(super) fn file(path: &Path, dialog: &mut Dialog, form: Form) -> Result<bool, Fault> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
    read(BufReader::new(file), &name, dialog, form)
}

/// Gives each line of `source` as a command as soon as it is there, and shows the reply before the next one is
/// read. False if any was refused; a command without a reply ends it.
pub(super) fn read(
    mut source: impl BufRead,
    name: &str,
    dialog: &mut Dialog,
    form: Form,
) -> Result<bool, Fault> {
    let mut all_done = true;
    for number in 1_u64.. {
        let mut line = Vec::new();
        let limited = (&mut source).take(LINE_MAX).read_until(b'\n', &mut line);
        if limited.map_err(|error| unreadable(name, &error))? == 0 {
            break;
        }
        let place = || format!("{name}, line {number}");
        if line.len() as u64 == LINE_MAX && !line.ends_with(b"\n") {
            return Err(Fault::Input(format!("{}: too long for a command", place())));
        }
        let Some(command) = command(&line) else { continue };
        let exchange =
            dialog.ask(command, form).map_err(|source| Fault::RelayAt { place: place(), source })?;
        show::print(&exchange, form)?;
        all_done &= exchange.is_done();
    }
    Ok(all_done)
}

/// The command in a line; `None` if it is blank or a comment.
fn command(line: &[u8]) -> Option<&[u8]> {
    let command = line.trim_ascii();
    (!command.is_empty() && !command.starts_with(b"#")).then_some(command)
}

fn unreadable(name: &str, error: &io::Error) -> Fault {
    Fault::Input(format!("{name}: {error}"))
}

/// More than a relay reads of a command.
const LINE_MAX: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_commands() {
        assert_eq!(command(b" V \r\n"), Some(&b"V"[..]));
        assert_eq!(command(b"Q c #f"), Some(&b"Q c #f"[..]));
        for line in [&b"\n"[..], b" \t\r\n", b"# V", b"  #V\n"] {
            assert_eq!(command(line), None, "{line:?}");
        }
    }
}
