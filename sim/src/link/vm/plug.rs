//! This machine as the storage array: image files that are plugged into nodes as virtio disks, and taken away again, while their kernels run.
//!
//! What is plugged in is written down beside the node (`plugged/SERIAL`), so that a node that boots again has its disks again. The reference driver's
//! controller asks for it with `wavetank vm plug`.
//!
//! ```text
//! dSERIAL (virtio-blk) ──► bSERIAL (raw) ──► fSERIAL (the image)
//!                                      └───► eSERIAL (blkdebug: errors) ──► fSERIAL     while the node's disks fail
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::qmp::Qmp;

/// Beside a node whose disks fail.
const FAILING: &str = "failing";
/// The number of `EIO`.
const EIO: u32 = 5;
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
            let Some(machine) = &mut machine else { return Ok(()) };
            push(machine, serial, image, *read_only)?;
            match directory.join(FAILING).exists() {
                true => spoil(machine, serial, *read_only, true),
                false => Ok(()),
            }
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
    let records = records(directory)?;
    if records.is_empty() {
        return Ok(());
    }
    let mut machine = Qmp::connect(&directory.join("qmp.sock"))?;
    for (serial, image, read_only) in records {
        push(&mut machine, &serial, &image, read_only)?;
        if directory.join(FAILING).exists() {
            spoil(&mut machine, &serial, read_only, true)?;
        }
    }
    Ok(())
}

/// What is plugged into a node: serial number, image, and whether it takes no writes.
fn records(directory: &Path) -> Result<Vec<(String, String, bool)>, String> {
    let entries = fs::read_dir(directory.join("plugged")).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let serial = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((word, image)) = text.split_once(' ') {
            records.push((serial, image.to_owned(), word == "ro"));
        }
    }
    Ok(records)
}

fn push(machine: &mut Qmp, serial: &str, image: &str, read_only: bool) -> Result<(), String> {
    let file = json!({
        "node-name": format!("f{serial}"),
        "driver": "file",
        "filename": image,
        "read-only": read_only,
        // Two nodes may have one disk: whether they should is the driver's to see to.
        "locking": "off",
        "cache": {"direct": false, "no-flush": true},
        "discard": "unmap",
    });
    again(machine.execute("blockdev-add", &file))?;
    again(machine.execute("blockdev-add", &raw(serial, &format!("f{serial}"), read_only)))?;
    let device = json!({
        "driver": "virtio-blk-pci",
        "id": format!("d{serial}"),
        "drive": format!("b{serial}"),
        "serial": serial,
        "share-rw": true,
    });
    again(machine.execute("device_add", &device))
}

/// What a disk shows: the bytes of another block node.
fn raw(serial: &str, of: &str, read_only: bool) -> serde_json::Value {
    json!({"node-name": format!("b{serial}"), "driver": "raw", "read-only": read_only, "discard": "unmap", "file": of})
}

/// The disks of a node answer every read and every write with an error, those that are plugged in later as well, or work again.
pub(super) fn fail(directory: &Path, failing: bool) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    match failing {
        true => fs::write(directory.join(FAILING), "").map_err(failed)?,
        false => match fs::remove_file(directory.join(FAILING)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        },
    }
    // A node without power is told when it boots.
    let Ok(mut machine) = Qmp::connect(&directory.join("qmp.sock")) else {
        return Ok(());
    };
    for (serial, _, read_only) in records(directory)? {
        spoil(&mut machine, &serial, read_only, failing)?;
    }
    Ok(())
}

/// Puts errors between a disk and its bytes, or takes them away.
fn spoil(machine: &mut Qmp, serial: &str, read_only: bool, failing: bool) -> Result<(), String> {
    let (file, errors) = (format!("f{serial}"), format!("e{serial}"));
    if failing {
        let fails = |what: &str| json!({"event": "none", "iotype": what, "errno": EIO, "once": false});
        // A flush succeeds: what was written to the disk before is there.
        let rules = ["read", "write", "write-zeroes", "discard"].map(fails);
        let node = json!({"node-name": errors, "driver": "blkdebug", "image": file, "inject-error": rules});
        again(machine.execute("blockdev-add", &node))?;
    }
    let shown = raw(serial, if failing { &errors } else { &file }, read_only);
    machine.execute("blockdev-reopen", &json!({"options": [shown]}))?;
    if failing { Ok(()) } else { drop_node(machine, &errors) }
}

fn drop_node(machine: &mut Qmp, node: &str) -> Result<(), String> {
    match machine.execute("blockdev-del", &json!({"node-name": node})) {
        Err(why) if !why.contains("Failed to find") => Err(why),
        _ => Ok(()),
    }
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
    // From what the disk shows down to the file.
    let mut nodes = ["b", "e", "f"].into_iter();
    nodes.try_for_each(|kind| drop_node(machine, &format!("{kind}{serial}")))
}
