//! A file that the command writes at its end: refused at its beginning where it cannot be written, and there whole or not at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Stop, Streams, USAGE};

/// A file to come. What was begun and is never written goes away.
pub(super) struct Draft {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Draft {
    /// Begins a file beside the one that it will become.
    pub fn open(path: &Path, streams: &mut Streams) -> Result<Draft, Stop> {
        let begun = begin(path);
        begun.or_else(|why| {
            writeln!(streams.err, "wavetank: {} cannot be written: {why}", path.display())?;
            Err(Stop::Status(USAGE))
        })
    }

    /// The same, if a path is given.
    pub fn maybe(path: Option<&Path>, streams: &mut Streams) -> Result<Option<Draft>, Stop> {
        path.map(|path| Draft::open(path, streams)).transpose()
    }

    /// Writes the whole file, and puts it in its place.
    pub fn write(mut self, bytes: &[u8], streams: &mut Streams) -> Result<(), Stop> {
        let done = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        if let Err(error) = done.and_then(|()| fs::rename(&self.part, &self.path)) {
            writeln!(
                streams.err,
                "wavetank: {} cannot be written: {error}",
                self.path.display()
            )?;
            return Err(Stop::Status(USAGE));
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there any more if it was put in its place.
        let _ = fs::remove_file(&self.part);
    }
}

fn begin(path: &Path) -> Result<Draft, String> {
    let name = path.file_name().ok_or("that is no name of a file")?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err("that is a folder".into()),
        Ok(found) if !found.is_file() => return Err("that is no plain file".into()),
        Ok(_) | Err(_) => {}
    }
    let part = path.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let file = File::create(&part).map_err(|error| error.to_string())?;
    Ok(Draft {
        path: path.to_owned(),
        part,
        file,
    })
}
