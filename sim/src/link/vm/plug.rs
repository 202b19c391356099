//! This machine as the storage array: image files that are plugged into nodes as virtio disks, and taken away again, while their kernels run.
//!
//! What is plugged in is written down beside the node (`plugged/SERIAL`), so that a node that boots again has its disks again. The reference driver's
//! controller asks for it with `wavetank vm plug`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::qmp::Qmp;

/// How long a node's kernel may take to let go of a disk.
const LETTING_GO: Duration = Duration::from_secs(20);

/// What is asked of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plug {
    /// Give the node a disk.
    In {
        /// The file that holds its bytes.
        image: String,
        /// Whether it takes no writes.
        read_only: bool,
    },
    /// Take it away.
    Out,
    /// Tell the node its new size, in bytes.
    Resize(u64),
}

/// Does it, for the node of a run and the disk with a serial number. A node without power is given its disks when it boots.
///
/// # Errors
/// Why it was not done.
pub fn plug(run: &Path, node: &str, serial: &str, what: &Plug) -> Result<(), String> {
    let directory = run.join(node);
    if !directory.is_dir() {
        return Err(format!("there is no node {node}"));
    }
    let record = directory.join("plugged").join(serial);
    let failed = |error: std::io::Error| format!("what is plugged into {node} cannot be written down: {error}");
    let mut machine = Qmp::connect(&directory.join("qmp.sock")).ok();
    match what {
        Plug::In { image, read_only } => {
            fs::create_dir_all(directory.join("plugged")).map_err(failed)?;
            let word = if *read_only { "ro" } else { "rw" };
            fs::write(&record, format!("{word} {image}")).map_err(failed)?;
            machine
                .as_mut()
                .map_or(Ok(()), |machine| push(machine, serial, image, *read_only))
        }
        Plug::Out => {
            machine.as_mut().map_or(Ok(()), |machine| pull(machine, serial))?;
            match fs::remove_file(&record) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            }
        }
        Plug::Resize(size) => machine.as_mut().map_or(Ok(()), |machine| {
            let arguments = json!({"node-name": format!("b{serial}"), "size": size});
            machine.execute("block_resize", &arguments).map(drop)
        }),
    }
}

/// Gives a node that has booted the disks that it had.
pub(super) fn plug_again(directory: &Path) -> Result<(), String> {
    let entries = fs::read_dir(directory.join("plugged")).into_iter().flatten().flatten();
    let mut records: Vec<_> = entries.map(|entry| entry.path()).collect();
    records.sort();
    if records.is_empty() {
        return Ok(());
    }
    let mut machine = Qmp::connect(&directory.join("qmp.sock"))?;
    for record in records {
        let text = fs::read_to_string(&record).map_err(|error| error.to_string())?;
        let serial = record.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((word, image)) = text.split_once(' ') {
            push(&mut machine, &serial, image, word == "ro")?;
        }
    }
    Ok(())
}

fn push(machine: &mut Qmp, serial: &str, image: &str, read_only: bool) -> Result<(), String> {
    let disk = json!({
        "node-name": format!("b{serial}"),
        "driver": "raw",
        "read-only": read_only,
        "file": {
            "driver": "file",
            "filename": image,
            // Two nodes may have one disk: whether they should is the driver's to see to.
            "locking": "off",
            "cache": {"direct": false, "no-flush": true},
            "discard": "unmap",
        },
    });
    again(machine.execute("blockdev-add", &disk))?;
    let device = json!({
        "driver": "virtio-blk-pci",
        "id": format!("d{serial}"),
        "drive": format!("b{serial}"),
        "serial": serial,
        "share-rw": true,
    });
    again(machine.execute("device_add", &device))
}

/// What is there already is fine.
fn again(done: Result<serde_json::Value, String>) -> Result<(), String> {
    match done {
        Err(why) if !why.to_ascii_lowercase().contains("duplicate") => Err(why),
        _ => Ok(()),
    }
}

fn pull(machine: &mut Qmp, serial: &str) -> Result<(), String> {
    let device = format!("d{serial}");
    let is_going = match machine.execute("device_del", &json!({"id": device})) {
        Ok(_) => true,
        Err(why) if why.contains("process of unplug") => true,
        Err(why) if why.contains("not found") => false,
        Err(why) => return Err(why),
    };
    if is_going {
        machine
            .wait_for_end_of(&device, LETTING_GO)
            .map_err(|why| format!("the node does not let go of the disk: {why}"))?;
    }
    match machine.execute("blockdev-del", &json!({"node-name": format!("b{serial}")})) {
        Err(why) if !why.contains("Failed to find") => Err(why),
        _ => Ok(()),
    }
}
