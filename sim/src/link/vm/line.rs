//! The tank's end of the line to a machine: connections to its sockets, opened as the driver's client asks for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wavetank_agent::line::{HEAD, LONGEST, Sign, head, read_head};

/// Bytes that may be on their way in one connection before its writer waits.
const ROOM: usize = 64 * 1024;

/// The line to one machine. When it breaks, so do its connections.
pub(super) struct Line {
    out: UnboundedSender<Vec<u8>>,
    ends: Arc<Mutex<Ends>>,
}

#[derive(Default)]
struct Ends {
    last: u32,
    open: BTreeMap<u32, UnboundedSender<(Sign, Vec<u8>)>>,
    broken: bool,
}

fn lock(ends: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frame(connection: u32, sign: Sign, bytes: &[u8]) -> Vec<u8> {
    [&head(connection, sign, bytes.len())[..], bytes].concat()
}

impl Line {
    /// A line over a stream. Only on the real threads.
    pub fn over(stream: UnixStream) -> Line {
        let (mut from, mut to) = tokio::io::split(stream);
        let (out, mut frames) = unbounded_channel::<Vec<u8>>();
        let ends = Arc::new(Mutex::new(Ends::default()));
        tokio::spawn(async move {
            while let Some(bytes) = frames.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        let table = Arc::clone(&ends);
        tokio::spawn(async move {
            while let Ok((connection, sign, bytes)) = receive(&mut from).await {
                let mut ends = lock(&table);
                let over = sign == Sign::Closed;
                if let Some(end) = ends.open.get(&connection) {
                    // Nobody there any more: the frame that says so is on its way.
                    let _ = end.send((sign, bytes));
                }
                if over {
                    ends.open.remove(&connection);
                }
            }
            let mut ends = lock(&table);
            ends.broken = true;
            ends.open.clear();
        });
        Line { out, ends }
    }

    /// Opens a connection to a socket of the machine.
    ///
    /// # Errors
    /// If nobody takes connections there, or the machine is gone.
    pub async fn dial(&self, socket: &str) -> io::Result<DuplexStream> {
        let (tell, mut told) = unbounded_channel();
        let connection = {
            let mut ends = lock(&self.ends);
            if ends.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            ends.last += 1;
            let connection = ends.last;
            ends.open.insert(connection, tell);
            connection
        };
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let open = frame(connection, Sign::Open, socket.as_bytes());
        self.out.send(open).map_err(gone)?;
        match told.recv().await {
            Some((Sign::Opened, _)) => {}
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        }
        let (near, far) = tokio::io::duplex(ROOM);
        let (from, to) = tokio::io::split(near);
        tokio::spawn(outward(from, self.out.clone(), connection, Arc::clone(&self.ends)));
        tokio::spawn(inward(told, to));
        Ok(far)
    }
}

async fn receive(from: &mut ReadHalf<UnixStream>) -> io::Result<(u32, Sign, Vec<u8>)> {
    let mut bytes = [0; HEAD];
    from.read_exact(&mut bytes).await?;
    let (connection, sign, length) = read_head(&bytes)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok((connection, sign, bytes))
}

async fn outward(
    mut from: ReadHalf<DuplexStream>,
    out: UnboundedSender<Vec<u8>>,
    connection: u32,
    ends: Arc<Mutex<Ends>>,
) {
    let mut bytes = vec![0; LONGEST];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if out.send(frame(connection, Sign::Data, &bytes[..count])).is_err() {
            return;
        }
    }
    lock(&ends).open.remove(&connection);
    // The machine may be gone.
    let _ = out.send(frame(connection, Sign::Closed, &[]));
}

async fn inward(mut told: UnboundedReceiver<(Sign, Vec<u8>)>, mut to: WriteHalf<DuplexStream>) {
    while let Some((Sign::Data, bytes)) = told.recv().await {
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::Line;

    #[test]
    fn bytes_go_both_ways_and_a_socket_without_a_listener_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (tank, node) = std::os::unix::net::UnixStream::pair().unwrap();
        let there = node.try_clone().unwrap();
        std::thread::spawn(move || wavetank_agent::line::serve(node, there));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut copy = stream.try_clone().unwrap();
            std::io::copy(&mut copy, &mut stream).unwrap();
        });
        let threads = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        threads.block_on(async {
            tank.set_nonblocking(true).unwrap();
            let line = Line::over(tokio::net::UnixStream::from_std(tank).unwrap());
            let mut stream = line.dial(socket.to_str().unwrap()).await.unwrap();
            let sent = vec![7_u8; 200_000];
            let (mut from, mut to) = tokio::io::split(&mut stream);
            let mut back = vec![0; sent.len()];
            let (wrote, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
            wrote.unwrap();
            read.unwrap();
            assert_eq!(back, sent);
            assert!(line.dial("/nowhere").await.is_err());
        });
    }
}
