//! The file of `--config`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memctl::watch::config::{ConfigError, MAX_BYTES, Mistake, Rules, line_and_column};

use crate::error::{Error, Result};

/// Reads the rules, up to the maximum size of the file.
pub fn read(file: &Path) -> Result<Rules> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| Error::io(&name, &e))?;
    let bad = |why| Error::config(&name, &why);
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (line, column) = line_and_column(&String::from_utf8_lossy(e.as_bytes()), at);
        bad(ConfigError { line, column, mistake: Mistake::NotText })
    })?;
    Rules::parse(&text).map_err(bad)
}
