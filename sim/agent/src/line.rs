//! Several connections over one line, where a node has no network: small frames, each for one connection.
//!
//! ```text
//! the tank ──Open 7 /var/lib/csi.sock──► the node connects there ──Opened 7 (or Closed 7)──► Data 7 … both ways … Closed 7
//! ```
//!
//! This is the form of the frames, and the node's end. The tank's end lies with its threads.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in front of what a frame carries.
pub const HEAD: usize = 9;
/// The most that a frame carries.
pub const LONGEST: usize = 32 * 1024;

/// What a frame says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Open it, to the socket that is named.
    Open,
    /// It is open.
    Opened,
    /// These bytes came.
    Data,
    /// It is over, or could not be opened.
    Closed,
}

const SIGNS: [Sign; 4] = [Sign::Open, Sign::Opened, Sign::Data, Sign::Closed];

/// The head of a frame that carries `length` bytes.
pub fn head(connection: u32, sign: Sign, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&connection.to_le_bytes());
    head[4] = SIGNS.iter().position(|known| *known == sign).unwrap_or_default() as u8;
    head[5..].copy_from_slice(&(length as u32).to_le_bytes());
    head
}

/// Reads a head: connection, sign, and how many bytes follow.
///
/// # Errors
/// If it is no head.
pub fn read_head(head: &[u8; HEAD]) -> io::Result<(u32, Sign, usize)> {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = number(5) as usize;
    match SIGNS.get(usize::from(head[4])) {
        Some(sign) if length <= LONGEST => Ok((number(0), *sign, length)),
        _ => Err(io::Error::other("the line carries what is no frame")),
    }
}

type Writer<W> = Arc<Mutex<W>>;

fn tell<W: Write>(to: &Writer<W>, connection: u32, sign: Sign, bytes: &[u8]) -> io::Result<()> {
    let mut frame = head(connection, sign, bytes.len()).to_vec();
    frame.extend_from_slice(bytes);
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(&frame)?;
    to.flush()
}

/// The node's end: opens connections to its sockets as it is told, until the line breaks.
///
/// # Errors
/// If it does.
pub fn serve<W: Write + Send + 'static>(mut from: impl Read, to: W) -> io::Result<()> {
    let to: Writer<W> = Arc::new(Mutex::new(to));
    let mut open: BTreeMap<u32, UnixStream> = BTreeMap::new();
    loop {
        let mut bytes = [0; HEAD];
        from.read_exact(&mut bytes)?;
        let (connection, sign, length) = read_head(&bytes)?;
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        match sign {
            Sign::Open => match connect(&bytes, connection, &to) {
                Ok(stream) => {
                    open.insert(connection, stream);
                }
                Err(_) => tell(&to, connection, Sign::Closed, &[])?,
            },
            Sign::Data => {
                // A broken connection is told of by the one who reads from it.
                if let Some(stream) = open.get_mut(&connection) {
                    let _ = stream.write_all(&bytes);
                }
            }
            Sign::Opened | Sign::Closed => {
                if let Some(stream) = open.remove(&connection) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

fn connect<W: Write + Send + 'static>(socket: &[u8], connection: u32, to: &Writer<W>) -> io::Result<UnixStream> {
    let socket = std::str::from_utf8(socket).map_err(io::Error::other)?;
    let stream = UnixStream::connect(socket)?;
    let mut from = stream.try_clone()?;
    tell(to, connection, Sign::Opened, &[])?;
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut bytes = vec![0; LONGEST];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if tell(&to, connection, Sign::Data, &bytes[..count]).is_err() {
                return;
            }
        }
        // A line that is broken has nobody at its other end.
        let _ = tell(&to, connection, Sign::Closed, &[]);
    });
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::{HEAD, Sign, head, read_head, serve};

    fn frame(line: &mut UnixStream) -> (u32, Sign, Vec<u8>) {
        let mut bytes = [0; HEAD];
        line.read_exact(&mut bytes).unwrap();
        let (connection, sign, length) = read_head(&bytes).unwrap();
        let mut bytes = vec![0; length];
        line.read_exact(&mut bytes).unwrap();
        (connection, sign, bytes)
    }

    #[test]
    fn connections_are_opened_refused_and_closed() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let (mut tank, node) = UnixStream::pair().unwrap();
        std::thread::spawn(move || serve(node.try_clone().unwrap(), node));
        let name = socket.to_str().unwrap().as_bytes();
        tank.write_all(&head(1, Sign::Open, name.len())).unwrap();
        tank.write_all(name).unwrap();
        assert_eq!(frame(&mut tank), (1, Sign::Opened, vec![]));
        let (mut there, _) = listener.accept().unwrap();
        tank.write_all(&head(1, Sign::Data, 2)).unwrap();
        tank.write_all(b"hi").unwrap();
        let mut heard = [0; 2];
        there.read_exact(&mut heard).unwrap();
        there.write_all(&heard).unwrap();
        assert_eq!(frame(&mut tank), (1, Sign::Data, b"hi".to_vec()));
        drop(there);
        assert_eq!(frame(&mut tank), (1, Sign::Closed, vec![]));
        tank.write_all(&head(2, Sign::Open, 2)).unwrap();
        tank.write_all(b"/x").unwrap();
        assert_eq!(frame(&mut tank), (2, Sign::Closed, vec![]), "nobody listens there");
        assert!(read_head(&[9; HEAD]).is_err());
    }
}
