//! Where the packets of each recording are in a segment.

use rtpproxy_core::journal::{Entry, Figures, Index, Member};

/// Collects what the next index says, and the totals for the directory.
#[derive(Debug, Default)]
pub(super) struct IndexWriter {
    rows: Vec<Row>,
    /// Rows with something new.
    changed: Vec<usize>,
    previous: Option<u64>,
    from: u64,
    /// The totals are not those of this file.
    has_moved: bool,
}

#[derive(Debug)]
struct Row {
    member: Member,
    is_told: bool,
    /// Before `entry`.
    total: Figures,
    entry: Entry,
}

impl IndexWriter {
    /// Takes in a recording; gives back the number of its row.
    pub(super) fn add(&mut self, member: Member) -> usize {
        let entry = Entry { first_interface: member.first_interface, ..Entry::default() };
        self.rows.push(Row { member, is_told: false, total: Figures::default(), entry });
        self.rows.len() - 1
    }

    /// The recordings, in the order of their interfaces.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.rows.iter().map(|row| &row.member)
    }

    /// How many recordings there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes note of blocks of a recording, `len` bytes from `at` on.
    pub(super) fn note(&mut self, row: usize, at: u64, len: u64) {
        let Row { entry, .. } = &mut self.rows[row];
        match entry.stretches.last_mut() {
            Some((begin, known)) if *begin + *known + MERGE_MAX >= at => *known = at + len - *begin,
            other => {
                if other.is_none() {
                    self.changed.push(row);
                }
                entry.stretches.push((at, len));
            }
        }
    }

    /// Counts what is in blocks of a recording.
    pub(super) fn count(&mut self, row: usize, more: Figures) {
        let figures = &mut self.rows[row].entry.figures;
        *figures = figures.plus(more);
    }

    /// Appends what is new, at `at` in the file. `is_end`: and the list of all recordings.
    pub(super) fn write(&mut self, at: u64, is_end: bool, out: &mut Vec<u8>) {
        let begin = out.len() as u64;
        let place = |out: &Vec<u8>| at + out.len() as u64 - begin;
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        for rows in parts(&changed, |row| self.rows[*row].size()) {
            let entries = rows.iter().map(|row| self.rows[*row].take());
            let index = Index {
                at: place(out),
                previous: self.previous,
                from: self.from,
                to: at,
                is_directory: false,
                entries: entries.collect(),
            };
            self.previous = Some(index.at);
            index.encode(out);
        }
        if is_end && !self.has_moved {
            let all: Vec<_> = (0..self.rows.len()).collect();
            for rows in parts(&all, |row| self.rows[*row].size()) {
                let entries = rows.iter().map(|row| self.rows[*row].sum());
                let (here, entries) = (place(out), entries.collect());
                let index = Index {
                    at: here,
                    previous: self.previous,
                    from: at,
                    to: at,
                    is_directory: true,
                    entries,
                };
                self.previous = Some(here);
                index.encode(out);
            }
        }
        self.from = place(out);
    }

    /// The file is another one, in which everything before `from` has to be looked through.
    pub(super) fn restart(&mut self, from: u64) {
        for row in std::mem::take(&mut self.changed) {
            self.rows[row].take();
        }
        (self.previous, self.from, self.has_moved) = (None, from, true);
    }
}

impl Row {
    /// About what it takes in an index, in bytes.
    fn size(&self) -> usize {
        let member = &self.member;
        64 + member.call_id.as_bytes().len()
            + member.from_tag.as_bytes().len()
            + 8 * self.entry.stretches.len()
    }

    /// What is new.
    fn take(&mut self) -> Entry {
        let Self { member, is_told, total, entry } = self;
        let first_interface = entry.first_interface;
        let mut taken = std::mem::replace(entry, Entry { first_interface, ..Entry::default() });
        for (party, known) in taken.figures.parties.iter_mut().zip(total.parties) {
            *party = party.filter(|_| *party != known);
        }
        *total = total.plus(taken.figures);
        taken.member = (!std::mem::replace(is_told, true)).then(|| member.clone());
        taken
    }

    /// Everything but where it is.
    fn sum(&self) -> Entry {
        let first_interface = self.entry.first_interface;
        Entry { first_interface, member: Some(self.member.clone()), figures: self.total, ..Entry::default() }
    }
}

/// Cuts a list into parts of a size that readers take as one block.
fn parts<T>(mut list: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !list.is_empty() {
        let mut sum = 0;
        let len = list.iter().take_while(|item| {
            sum += size(item);
            sum <= PART_MAX
        });
        let (part, rest) = list.split_at(len.count().max(1));
        parts.push(part);
        list = rest;
    }
    parts
}

/// Stretches that are so near make one: what lies between is read faster than left out, in bytes.
const MERGE_MAX: u64 = 16 << 10;
/// How large an index may be, in bytes.
const PART_MAX: usize = 256 << 10;
