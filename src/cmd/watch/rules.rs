//! The file of `--config`.

use std::path::Path;

use memctl::watch::config::{ConfigError, Mistake, Rules, line_and_column};

use crate::error::{Error, Result};
use crate::metrics::{Stamp, read_rules};

/// Reads the rules, and the stamp of the file.
pub fn read(file: &Path) -> Result<(Rules, Option<Stamp>)> {
    let (text, stamp) = text(file)?;
    Ok((parse(file, &text)?, stamp))
}

/// Parses the text of a file.
pub fn parse(file: &Path, text: &str) -> Result<Rules> {
    Rules::parse(text).map_err(|why| Error::config(&file.display().to_string(), &why))
}

/// Reads the text of a file, up to the maximum size, and its stamp.
pub fn text(file: &Path) -> Result<(String, Option<Stamp>)> {
    let name = file.display().to_string();
    let (bytes, stamp) = read_rules(file).map_err(|e| Error::io(&name, &e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (line, column) = line_and_column(&String::from_utf8_lossy(e.as_bytes()), at);
        Error::config(&name, &ConfigError { line, column, mistake: Mistake::NotText })
    })?;
    Ok((text, stamp))
}
