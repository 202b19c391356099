//! The way to tell a machine's QEMU what to do: one command at a time, over a socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A conversation with QEMU.
pub(super) struct Qmp {
    to: UnixStream,
    from: BufReader<UnixStream>,
    /// Devices that have gone meanwhile.
    gone: Vec<String>,
}

impl Qmp {
    /// Begins one over a socket that QEMU serves.
    ///
    /// # Errors
    /// Why it cannot be, as a sentence.
    pub fn connect(socket: &Path) -> Result<Qmp, String> {
        let connect = || -> std::io::Result<Qmp> {
            let to = UnixStream::connect(socket)?;
            to.set_read_timeout(Some(PATIENCE))?;
            let from = BufReader::new(to.try_clone()?);
            Ok(Qmp {
                to,
                from,
                gone: Vec::new(),
            })
        };
        let mut qmp = connect().map_err(|error| format!("QEMU takes no commands: {error}"))?;
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has a command done.
    ///
    /// # Errors
    /// What QEMU says against it.
    pub fn execute(&mut self, command: &str, arguments: &Json) -> Result<Json, String> {
        let line = json!({"execute": command, "arguments": arguments});
        writeln!(self.to, "{line}").map_err(|error| format!("QEMU is gone: {error}"))?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or("it does not say why");
                return Err(format!("QEMU refuses {command}: {why}"));
            }
            self.note(&answer);
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Anything else than an answer is news of its own.
    fn note(&mut self, news: &Json) {
        if news["event"] == "DEVICE_DELETED" {
            self.gone.extend(news["data"]["device"].as_str().map(str::to_owned));
        }
    }

    /// Waits until a device is gone.
    ///
    /// # Errors
    /// If nothing is heard of it for so long.
    pub fn wait_for_end_of(&mut self, device: &str, patience: Duration) -> Result<(), String> {
        self.to
            .set_read_timeout(Some(patience))
            .map_err(|error| error.to_string())?;
        while !self.gone.iter().any(|gone| gone == device) {
            let news = self.read()?;
            self.note(&news);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Json, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).map_err(|error| format!("QEMU says what is no JSON: {error}")),
            Ok(0) => Err("QEMU is gone".to_owned()),
            Err(error) => Err(format!("QEMU does not answer: {error}")),
        }
    }
}
