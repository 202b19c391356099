//! An archive that a Linux kernel unpacks as its first file system: `newc` of `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::io::{self, Write};

/// Writes an archive. Parents are made as they are needed; what is written twice counts once.
pub(super) struct Archive<W> {
    to: W,
    written: u64,
    names: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTERS: u32 = 0o020_600;

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Archive<W> {
        Archive {
            to,
            written: 0,
            names: BTreeSet::new(),
        }
    }

    pub fn has(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// A directory and those above it.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entry(&path[..at], DIRECTORY, (0, 0), &[])?;
        }
        Ok(())
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, FILE | mode, (0, 0), bytes)
    }

    pub fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, LINK, (0, 0), to.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, CHARACTERS, number, &[])
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.record("TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(512)?;
        Ok(self.to)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match path.trim_start_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if path.is_empty() || !self.names.insert(path.to_owned()) {
            return Ok(());
        }
        self.record(path, mode, device, bytes)
    }

    fn record(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other(format!("{name} is too large")))?;
        let number = self.names.len() as u32;
        let fields = [
            number,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            major,
            minor,
            name.len() as u32 + 1,
            0,
        ];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        self.put(head.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(bytes)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = (to - self.written % to) % to;
        self.put(&[0; 512][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", 0o755, b"xyz").unwrap();
        archive.file("/a/c", 0o644, b"").unwrap();
        archive.link("/d", "a/b").unwrap();
        archive.device("/dev/null", (1, 3)).unwrap();
        assert!(archive.has("/a/b") && !archive.has("/x"));
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        let heads: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert!(heads.iter().all(|at| at % 4 == 0), "{heads:?}");
        assert_eq!(heads.len(), 7, "a, a/b, a/c, d, dev, dev/null, the end");
        // The second: a file of three bytes, executable, with a name of three bytes and its end.
        let field =
            |head: usize, n: usize| u32::from_str_radix(&text[head + 6 + n * 8..head + 14 + n * 8], 16).unwrap();
        assert_eq!(
            (field(heads[1], 1), field(heads[1], 6), field(heads[1], 11)),
            (0o100_755, 3, 4)
        );
        assert_eq!((field(heads[5], 9), field(heads[5], 10)), (1, 3));
    }
}
