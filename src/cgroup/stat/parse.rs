//! Fast parsing of many `memory.stat`, one after the other, into little memory.
//!
//! A kernel writes its keys in the same order every time, so the parser remembers the position of
//! each key: then a line takes one comparison, instead of one for every known key.

use super::{KEYS, MemoryStat};

/// Values of one read of `memory.stat`, in a fraction of the size of a [`MemoryStat`]: most
/// counters of most cgroups are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedStat {
    /// Bit sets of fields: `known` for the fields that this kernel offers, `there` for the fields
    /// that aren't 0.
    known: u64,
    there: u64,
    /// Values that aren't 0, in the order of the fields.
    values: Box<[u64]>,
}

const _: () = assert!(KEYS.len() <= u64::BITS as usize, "a bit for each key");

impl PackedStat {
    fn new(fields: &[Option<u64>; KEYS.len()]) -> Self {
        let which = |has: fn(u64) -> bool| {
            let bits = fields.iter().enumerate().filter(|(_, value)| value.is_some_and(has));
            bits.fold(0, |bits, (field, _)| bits | 1 << field)
        };
        let values = fields.iter().flatten().copied().filter(|&value| value != 0).collect();
        Self { known: which(|_| true), there: which(|value| value != 0), values }
    }

    /// Returns the value of a field, numbered in the order of the fields of [`MemoryStat`].
    pub(super) fn get(&self, field: usize) -> Option<u64> {
        let is_in = |bits: u64| bits >> field & 1 == 1;
        let before = (self.there & ((1 << field) - 1)).count_ones() as usize;
        is_in(self.known).then(|| if is_in(self.there) { self.values[before] } else { 0 })
    }

    /// Unpacks all fields.
    #[must_use]
    pub fn unpack(&self) -> MemoryStat {
        MemoryStat::from_fields((0..KEYS.len()).map(|field| self.get(field)))
    }
}

/// Maximum number of lines to remember; a kernel writes some hundred.
const REMEMBERED: usize = 256;

/// Parser of the texts of `memory.stat`.
#[derive(Debug, Default)]
pub struct StatParser {
    /// Keys of the last text's lines, with their fields, if known.
    lines: Vec<(Box<[u8]>, Option<u8>)>,
}

impl StatParser {
    /// Parses one text. Skips unknown keys and values that aren't numbers.
    pub(crate) fn parse(&mut self, text: &str) -> PackedStat {
        PackedStat::new(&self.fields(text))
    }

    /// Parses one text into values in the order of the fields.
    pub(super) fn fields(&mut self, text: &str) -> [Option<u64>; KEYS.len()] {
        let mut fields = [None; KEYS.len()];
        let mut rest = text.as_bytes();
        let mut number = 0;
        while !rest.is_empty() {
            let (field, value) = self.line(number, rest);
            let end = value.iter().position(|&byte| byte == b'\n').unwrap_or(value.len());
            if let Some(field) = field
                && let Some(amount) = amount(&value[..end])
            {
                fields[usize::from(field)] = Some(amount);
            }
            rest = value.get(end + 1..).unwrap_or_default();
            number += 1;
        }
        fields
    }

    /// Returns the field of line `number`, if known, and the text after its key.
    fn line<'a>(&mut self, number: usize, text: &'a [u8]) -> (Option<u8>, &'a [u8]) {
        if let Some((key, field)) = self.lines.get(number)
            && let Some([b' ', value @ ..]) = text.strip_prefix(&**key)
        {
            return (*field, value);
        }
        let Some(end) =
            text.iter().position(|byte| matches!(byte, b' ' | b'\n')).filter(|&at| text[at] == b' ')
        else {
            return (None, text);
        };
        let (key, value) = (&text[..end], &text[end + 1..]);
        let field = KEYS.iter().position(|known| known.as_bytes() == key).map(|field| field as u8);
        if number < self.lines.len() {
            self.lines[number] = (key.into(), field);
        } else if number == self.lines.len() && number < REMEMBERED {
            self.lines.push((key.into(), field));
        }
        (field, value)
    }
}

/// Parses a number; `None` if the text isn't a number, or exceeds 64 bits.
fn amount(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let (first, rest) = digits.split_first()?;
    rest.iter().try_fold(digit(first)?, |sum, byte| sum.checked_mul(10)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_changes_is_read_all_the_same() {
        let mut parser = StatParser::default();
        let first = parser.parse("anon 1\nunknown 5\nfile 2\n").unpack();
        assert_eq!((first.anon, first.file), (Some(1), Some(2)));
        let same = parser.parse("anon 3\nunknown 5\nfile 4\n").unpack();
        assert_eq!((same.anon, same.file), (Some(3), Some(4)));
        let other =
            parser.parse("file 5\nanon 6\nfilet 7\nfile\nslab 18446744073709551616\nkernel 8").unpack();
        let expected = MemoryStat { file: Some(5), anon: Some(6), kernel: Some(8), ..MemoryStat::default() };
        assert_eq!(other, expected);
    }

    #[test]
    fn a_key_that_is_the_beginning_of_another_is_not_that() {
        let mut parser = StatParser::default();
        assert_eq!(parser.parse("file 1\n").unpack().file, Some(1));
        let other = parser.parse("file_mapped 2\n").unpack();
        assert_eq!((other.file, other.file_mapped), (None, Some(2)));
    }
}
