//! Walks over the command line as getopt_long(3) does, one option at a time.
//!
//! Options act in the order they are met: `-V` prints although nonsense follows, and a bad value before it
//! still fails. A parser that looks at the whole line first cannot do that.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::defs::{Form, ORIGINAL_LONGS, Opt, options};

/// One option that was met.
#[derive(Debug)]
pub(super) struct Met {
    /// Its row of the table.
    pub(super) option: &'static Opt,
    /// Its value.
    pub(super) value: Option<OsString>,
}

/// A command line that does not fit the table; the text says where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadUsage(String);

/// The walk: an iterator over options, then [`Getopt::extra`].
pub(super) struct Getopt {
    rest: VecDeque<OsString>,
    /// The remaining letters of a word such as `-fF`.
    cluster: VecDeque<u8>,
    extra: usize,
}

impl Getopt {
    /// A walk over `args` without the program's name.
    pub(super) fn new(args: impl IntoIterator<Item = OsString>) -> Self {
        Self { rest: args.into_iter().collect(), cluster: VecDeque::new(), extra: 0 }
    }

    /// The number of words that are neither options nor their values, as far as the walk has come.
    pub(super) fn extra(&self) -> usize {
        self.extra
    }

    fn short(&mut self, letter: u8) -> Result<Met, BadUsage> {
        let found = options().find(|option| option.short == Some(char::from(letter)));
        let Some(option) = found else {
            return Err(BadUsage(format!("unknown option -{}", letter.escape_ascii())));
        };
        let value = if !takes_value(option) {
            None
        } else if self.cluster.is_empty() {
            let next = self.rest.pop_front();
            Some(next.ok_or_else(|| BadUsage(format!("option -{} needs an argument", char::from(letter))))?)
        } else {
            Some(OsString::from_vec(self.cluster.drain(..).collect()))
        };
        Ok(Met { option, value })
    }

    fn long(&mut self, word: &[u8]) -> Result<Met, BadUsage> {
        let mut parts = word.splitn(2, |&byte| byte == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let attached = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
        let option = find_long(&name)?;
        let value = match (option.form, attached) {
            (Form::Switch, Some(_)) => {
                return Err(BadUsage(format!("option {} takes no argument", option.spelling())));
            }
            (Form::Switch | Form::LooseSwitch(_), _) => None,
            (_, Some(value)) => Some(value),
            (_, None) => {
                let next = self.rest.pop_front();
                let missing = || BadUsage(format!("option {} needs an argument", option.spelling()));
                Some(next.ok_or_else(missing)?)
            }
        };
        Ok(Met { option, value })
    }
}

impl Iterator for Getopt {
    type Item = Result<Met, BadUsage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(letter) = self.cluster.pop_front() {
                return Some(self.short(letter));
            }
            let word = self.rest.pop_front()?;
            match word.as_bytes() {
                b"--" => self.extra += std::mem::take(&mut self.rest).len(),
                [b'-', b'-', long @ ..] => return Some(self.long(long)),
                [b'-', letters @ ..] if !letters.is_empty() => self.cluster.extend(letters),
                _ => self.extra += 1,
            }
        }
    }
}

fn takes_value(option: &Opt) -> bool {
    !matches!(option.form, Form::Switch | Form::LooseSwitch(_))
}

fn find_long(name: &str) -> Result<&'static Opt, BadUsage> {
    let longs = || options().filter_map(|option| Some((option.long?, option)));
    if let Some((_, option)) = longs().find(|(long, _)| *long == name) {
        return Ok(option);
    }
    let (original, ours): (Vec<_>, Vec<_>) = longs()
        .filter(|(long, _)| long.starts_with(name))
        .partition(|(long, _)| ORIGINAL_LONGS.contains(long));
    let candidates = if original.is_empty() { ours } else { original };
    match candidates.as_slice() {
        [] => Err(BadUsage(format!("unknown option --{name}"))),
        [(_, option)] => Ok(option),
        many => {
            let names: Vec<_> = many.iter().map(|(long, _)| format!("--{long}")).collect();
            Err(BadUsage(format!("option --{name} may mean {}", names.join(" or "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::defs;
    use super::*;

    /// Key and value of each option, and the number of stray words.
    type Walked = (Vec<(&'static str, Option<String>)>, usize);

    fn walk(words: &[&str]) -> Result<Walked, BadUsage> {
        let mut getopt = Getopt::new(words.iter().map(OsString::from));
        let mut met = Vec::new();
        for option in getopt.by_ref() {
            let option = option?;
            met.push((option.option.key, option.value.map(|value| value.into_string().unwrap())));
        }
        Ok((met, getopt.extra()))
    }

    fn keys(words: &[&str]) -> Vec<&'static str> {
        walk(words).unwrap().0.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_table_is_consistent() {
        defs::command().debug_assert();
    }

    #[test]
    fn short_options_are_joined() {
        assert_eq!(keys(&["-fFa"]), ["foreground", "allow_root", "record_all"]);
        let (met, _) = walk(&["-fm12000", "-bM", "13000"]).unwrap();
        assert_eq!(met[1], ("port_min", Some("12000".into())));
        assert_eq!(met[3], ("port_max", Some("13000".into())));
    }

    #[test]
    fn a_value_may_look_like_an_option() {
        let (met, _) = walk(&["-t", "-1", "-6", "::1", "-r", "-f", "--nice", "-5"]).unwrap();
        let values: Vec<_> = met.iter().map(|(_, value)| value.as_deref().unwrap()).collect();
        assert_eq!(values, ["-1", "::1", "-f", "-5"]);
    }

    #[test]
    fn long_options_are_abbreviated() {
        assert_eq!(
            keys(&["--no_red", "--no_res", "--b", "--f", "--o", "--ni=3"]),
            ["no_redirect", "no_resolve", "bridge_symmetric", "force_asymmetric", "overload_prot", "nice"]
        );
        assert_eq!(keys(&["--lat=nat", "--codec", "1=a/1", "--comp"]), ["latch", "codec_map", "compat"]);
        assert!(walk(&["--no_re"]).unwrap_err().to_string().contains("--no_resolve or --no_redirect"));
    }

    #[test]
    fn an_abbreviation_of_the_c_program_keeps_its_meaning() {
        assert_eq!(keys(&["--co", "x", "--c", "y", "--d=z"]), ["config", "config", "dso"]);
    }

    #[test]
    fn optional_values_need_the_equals_sign() {
        let (met, extra) = walk(&["--overload_prot", "x", "--overload_prot=y"]).unwrap();
        assert_eq!(met, [("overload_prot", None), ("overload_prot", None)]);
        assert_eq!(extra, 1);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (words, message) in [
            (&["-h"][..], "unknown option -h"),
            (&["-fz"], "unknown option -z"),
            (&["--nope"], "unknown option --nope"),
            (&["-m"], "option -m needs an argument"),
            (&["--nice"], "option --nice needs an argument"),
            (&["--no_redirect=1"], "option --no_redirect takes no argument"),
        ] {
            assert_eq!(walk(words).unwrap_err().to_string(), message, "{words:?}");
        }
    }

    #[test]
    fn stray_words_are_counted_wherever_they_stand() {
        let (met, extra) = walk(&["a", "-f", "b", "-", "--", "-F", "c"]).unwrap();
        assert_eq!(met.len(), 1);
        assert_eq!(extra, 5);
    }
}
