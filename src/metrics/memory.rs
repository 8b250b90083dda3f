//! A text in memory of its own, which the kernel can send and copy.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};

/// Size of the buffer between the text and its memory.
const BUFFER: usize = 8 << 10;

/// Returns the text that `write` writes, in a file without a name.
///
/// # Errors
/// The kernel's.
pub fn in_memory(write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<OwnedFd> {
    let text = memfd_create("metrics", MemfdFlags::CLOEXEC)?;
    let mut to = BufWriter::with_capacity(BUFFER, File::from(text));
    write(&mut to)?;
    to.flush()?;
    Ok(to.into_inner().map_err(io::IntoInnerError::into_error)?.into())
}
