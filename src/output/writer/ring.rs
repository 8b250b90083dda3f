//! A bounded ring of lines.

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Bytes before each line: its number and its length.
const HEADER: usize = size_of::<u64>() + size_of::<u32>();

/// Bytes that an empty ring keeps at most. Lines that are written as they come need no more.
const KEPT: usize = 16 << 10;

/// Lines in the order in which they were pushed, each with a number, in a buffer of a fixed size.
///
/// The buffer is a range of addresses: its pages take memory from their first use, and are given
/// back when the ring is empty.
pub struct Ring {
    bytes: Vec<u8>,
    /// Index of the first byte in use.
    start: usize,
    /// Bytes in use, headers included.
    used: usize,
    /// Bytes of the first line that were taken.
    taken: usize,
    /// End of the bytes that were used since pages were last given back.
    touched: usize,
}

impl Ring {
    /// Creates an empty ring of this capacity in bytes.
    pub fn new(capacity: usize) -> Self {
        let mut ring = Self { bytes: vec![0; capacity], start: 0, used: 0, taken: 0, touched: 0 };
        ring.give_back();
        ring
    }

    /// Returns the capacity in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the number of bytes in use, headers included.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Returns whether the ring has no line.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a line as a whole, if there is room for it. Returns whether there was.
    pub fn push(&mut self, number: u64, line: &[u8]) -> bool {
        let Ok(length) = u32::try_from(line.len()) else { return false };
        if line.is_empty() || line.len() > (self.capacity() - self.used).saturating_sub(HEADER) {
            return false;
        }
        self.append(&number.to_ne_bytes());
        self.append(&length.to_ne_bytes());
        self.append(line);
        true
    }

    /// Returns the number of the first line.
    pub fn number(&self) -> Option<u64> {
        let mut number = [0; size_of::<u64>()];
        (self.copy(0, &mut number) == number.len()).then_some(u64::from_ne_bytes(number))
    }

    /// Copies the beginning of what is left of the first line. Returns the number of bytes.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let left = self.length() - self.taken;
        let most = into.len().min(left);
        self.copy(HEADER + self.taken, &mut into[..most])
    }

    /// Removes this many bytes of the first line.
    pub fn take(&mut self, bytes: usize) {
        let length = self.length();
        self.taken += bytes.min(length - self.taken);
        if self.taken < length || self.is_empty() {
            return;
        }
        self.start = (self.start + HEADER + length) % self.capacity();
        self.used -= HEADER + length;
        self.taken = 0;
        if self.is_empty() {
            // Small lines written at once stay on the first page.
            self.start = 0;
            if self.touched > KEPT {
                self.give_back();
            }
        }
    }

    /// Removes all lines.
    pub fn clear(&mut self) {
        (self.start, self.used, self.taken) = (0, 0, 0);
        self.give_back();
    }

    /// Returns the length of the first line, 0 without one.
    fn length(&self) -> usize {
        let mut length = [0; size_of::<u32>()];
        self.copy(size_of::<u64>(), &mut length);
        u32::from_ne_bytes(length) as usize
    }

    /// Copies bytes in use, from this offset on. Returns the number of bytes.
    fn copy(&self, from: usize, into: &mut [u8]) -> usize {
        let most = into.len().min(self.used.saturating_sub(from));
        let at = (self.start + from) % self.capacity().max(1);
        let first = most.min(self.capacity() - at);
        into[..first].copy_from_slice(&self.bytes[at..at + first]);
        into[first..most].copy_from_slice(&self.bytes[..most - first]);
        most
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = (self.start + self.used) % self.capacity();
        let first = bytes.len().min(self.capacity() - at);
        self.bytes[at..at + first].copy_from_slice(&bytes[..first]);
        self.bytes[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.used += bytes.len();
        self.touched = self.touched.max(at + first);
    }

    /// Gives the pages of an empty ring back to the kernel.
    fn give_back(&mut self) {
        self.touched = 0;
        let (page, begin) = (page_size(), self.bytes.as_mut_ptr());
        let before = begin.align_offset(page);
        let Some(whole) = self.bytes.len().checked_sub(before).map(|after| after / page * page) else {
            return;
        };
        // SAFETY: the range lies within the buffer, which this has for itself. It is private
        // memory of the allocator's: its pages read as zeros afterwards, which are valid bytes, and
        // an empty ring has none that matter. An error changes nothing.
        let _ = unsafe { madvise(begin.add(before).cast(), whole, Advice::LinuxDontneedLocked) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Take(usize),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            20 => (0..300usize).prop_map(Step::Push),
            20 => (1..200usize).prop_map(Step::Take),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn lines_stay_whole_and_in_order_within_the_capacity(capacity in 1..1000usize, steps in steps()) {
            let mut ring = Ring::new(capacity);
            let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            let (mut pushed, mut dropped, mut written, mut cleared) = (0u64, 0, 0, 0);
            for step in steps {
                match step {
                    Step::Push(length) => {
                        let line: Vec<u8> = (0..length).map(|at| (pushed as usize + at) as u8).collect();
                        pushed += 1;
                        let fits = length > 0 && ring.used() + HEADER + length <= capacity;
                        prop_assert_eq!(ring.push(pushed, &line), fits);
                        if fits {
                            model.push_back((pushed, line));
                        } else {
                            dropped += 1;
                        }
                    }
                    Step::Take(most) => {
                        let mut chunk = vec![0; most];
                        let peeked = ring.peek(&mut chunk);
                        prop_assert_eq!(ring.number(), model.front().map(|(number, _)| *number));
                        let Some((_, line)) = model.front_mut() else {
                            prop_assert_eq!(peeked, 0);
                            continue;
                        };
                        prop_assert_eq!(&chunk[..peeked], &line[..most.min(line.len())]);
                        ring.take(peeked);
                        line.drain(..peeked);
                        if line.is_empty() {
                            model.pop_front();
                            written += 1;
                        }
                    }
                    Step::Clear => {
                        ring.clear();
                        cleared += model.len() as u64;
                        model.clear();
                    }
                }
                prop_assert!(ring.used() <= ring.capacity());
                prop_assert_eq!(ring.is_empty(), model.is_empty());
            }
            prop_assert_eq!(dropped + written + cleared + model.len() as u64, pushed);
        }
    }

    #[test]
    fn an_empty_ring_gives_its_pages_back() {
        let mut ring = Ring::new(1 << 20);
        let line = [7; 1000];
        while ring.push(1, &line) {}
        let mut chunk = [0; 4096];
        for _ in 0..2 {
            while !ring.is_empty() {
                let length = ring.peek(&mut chunk);
                assert_eq!(&chunk[..length], &line[..]);
                ring.take(length);
            }
            assert!(ring.touched < KEPT);
            // Pages of the kernel's read as zeros.
            assert!(ring.bytes[page_size()..ring.capacity() - page_size()].iter().all(|&byte| byte == 0));
            assert!(ring.push(2, &line) && ring.touched < KEPT);
        }
    }
}
