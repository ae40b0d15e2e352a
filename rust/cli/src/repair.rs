//! `rtpproxy repair`: readable recordings from damaged ones.

use std::path::{Path, PathBuf};

use clap::Parser;
use rtpproxy_analysis::repair::{self, Repaired, Target};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_analysis::verify::{self, Unit};

use crate::folders::mirrored;
use crate::verify::{bytes_bar, printable};
use crate::{complain, say};

/// Makes readable recordings of damaged ones: torn ends are cut off, and what lies behind damage is found again.
///
/// The originals stay as they are, and a repaired one is NAME.repaired beside it, with a sidecar that says what is lost.
/// Exit status: 0 if nothing is damaged any more, 1 if a recording could not be repaired, 2 if something cannot be read.
#[derive(Debug, Parser)]
#[command(name = "rtpproxy repair", bin_name = "rtpproxy repair", max_term_width = 110)]
pub(crate) struct Repair {
    /// Recordings, and folders with recordings, however deep.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Folder for what is repaired, under its own name and in the same folders; made if it is missing.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the originals.
    #[arg(long, conflicts_with = "output")]
    in_place: bool,
    /// Replace files that exist.
    #[arg(short, long)]
    force: bool,
    /// File with a secret key of age or ssh that opens encrypted recordings; repeatable. What is repaired is not
    /// encrypted any more.
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
}

impl Repair {
    /// Runs it and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        match self.repair_all() {
            Ok(is_well) => i32::from(!is_well),
            Err(error) => {
                complain(&format!("repair: {error}"));
                UNREADABLE
            }
        }
    }

    /// Whether all went well.
    fn repair_all(&self) -> Result<bool, String> {
        let units = verify::survey(&self.paths).map_err(|error| error.to_string())?;
        let identities = Identities::read(&self.identity).map_err(|error| error.to_string())?;
        if units.is_empty() {
            return Err("there are no recordings (.pcapng, .pcap, .rtp, .rtcp) in what was given".to_owned());
        }
        let bar = bytes_bar(&units, "Repairing");
        let mut is_well = true;
        for unit in units.iter().filter(|unit| !is_only_a_sidecar(unit)) {
            let target = self.target_of(unit);
            match repair::repair(unit, &target, self.force, &identities, &|read| bar.inc(read)) {
                Ok(repaired) => bar.suspend(|| say(&report(unit.path(), &repaired))),
                Err(error) => {
                    is_well = false;
                    bar.suspend(|| complain(&printable(&format!("repair: {error}"))));
                }
            }
        }
        bar.finish_and_clear();
        Ok(is_well)
    }

    fn target_of(&self, unit: &Unit) -> Target {
        match &self.output {
            Some(output) => Target::Folder(mirrored(output, &self.paths, unit.path())),
            None if self.in_place => Target::InPlace,
            None => Target::Beside,
        }
    }
}

/// Nothing but words, with no packets to save.
fn is_only_a_sidecar(unit: &Unit) -> bool {
    unit.files
        .iter()
        .all(|file| verify::expected_format(file).is_none() && verify::without_part(file).is_some())
}

/// A line for a recording, and further ones for what was assumed.
fn report(original: &Path, repaired: &Repaired) -> String {
    let original = original.display();
    let Repaired { files, packets, lost_packets, lost_bytes, notes } = repaired;
    if files.is_empty() {
        return printable(&format!("{original}: nothing to repair")) + "\n";
    }
    let outputs = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let lost = match lost_packets {
        Some(lost) => format!("{lost} packets are lost, in {lost_bytes} bytes that could not be read"),
        None => format!("{lost_bytes} bytes could not be read"),
    };
    let mut text = printable(&format!("{original}: {packets} packets are in {outputs}; {lost}")) + "\n";
    for note in notes {
        text += &printable(&format!("  {note}\n"));
    }
    text
}

/// The exit status if something cannot be read.
const UNREADABLE: i32 = 2;
