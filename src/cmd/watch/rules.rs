//! The file of `--config`.

use std::path::Path;

use memctl::watch::config::{ConfigError, Mistake, Rules, line_and_column};

use super::rules_file::{self, Stamp, Version};
use crate::error::{Error, Result};

/// Reads the rules, and the stamp of the file.
pub fn read(file: &Path) -> Result<(Rules, Option<Stamp>)> {
    let (text, stamp) = text(file).map_err(|(why, _)| why)?;
    Ok((parse(file, &text)?, stamp))
}

/// Parses the text of a file.
pub fn parse(file: &Path, text: &str) -> Result<Rules> {
    Rules::parse(text).map_err(|why| Error::config(&file.display().to_string(), &why))
}

/// Reads the text of a file again, as [`text`] does. A pipe has nothing more, and may never have.
pub fn text_again(file: &Path) -> std::result::Result<(String, Option<Stamp>), (Error, Version)> {
    match file.metadata() {
        Ok(found) if !found.is_file() => {
            Err((Error::new("not a regular file").context(file.display()), Version::NotAFile))
        }
        _ => text(file),
    }
}

/// Reads the text of a file, up to the maximum size, and its stamp. An error comes with the version
/// that has it.
pub fn text(file: &Path) -> std::result::Result<(String, Option<Stamp>), (Error, Version)> {
    let name = file.display().to_string();
    let (bytes, stamp) = rules_file::read(file).map_err(|e| (Error::io(&name, &e), Version::of(Err(&e))))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (line, column) = line_and_column(&String::from_utf8_lossy(e.as_bytes()), at);
        let why = Error::config(&name, &ConfigError { line, column, mistake: Mistake::NotText });
        (why, Version::of(Ok(stamp)))
    })?;
    Ok((text, stamp))
}
