//! One connection: a task that reads and one that writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::ConnectionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::outbox::{Next, Outbox};
use super::{Events, Shared};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// How long a connection that was closed here may take to send what waits, and to hear the other
/// side close it too. Without that the kernel would throw away what the other side has not read.
const LINGER: Duration = Duration::from_secs(2);

/// A connected socket.
pub(super) struct Stream {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Stream {
    pub(super) fn of_unix(stream: UnixStream) -> Stream {
        let (reader, writer) = stream.into_split();
        Stream { reader: Box::new(reader), writer: Box::new(writer) }
    }

    pub(super) fn of_tcp(stream: TcpStream) -> io::Result<Stream> {
        // A lock message is short and somebody waits for it.
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
    }
}

/// Serves a connection that was announced, until its end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    events: Events,
    id: ConnectionId,
    outbox: Arc<Outbox>,
    stream: Stream,
) {
    let Stream { reader, writer } = stream;
    let for_writer = Arc::clone(&outbox);
    let writing = shared.handle.spawn(async move { write(&for_writer, writer).await });
    let abort = writing.abort_handle();
    let written = async {
        if let Ok(Err(error)) = writing.await {
            tracing::debug!(?id, %error, "a connection cannot be written");
        }
        // The other side ends the connection; what it still has to say is read.
        tokio::time::sleep(LINGER).await;
    };
    let why = tokio::select! {
        result = read(&events, id, &outbox, reader) => match result {
            Ok(()) => "closed by the other side",
            Err(error) => {
                tracing::debug!(?id, %error, "a connection cannot be read");
                "broken"
            }
        },
        () = written => "written to its end",
        () = outbox.broken() => "too much waits to be sent",
    };
    abort.abort();
    shared.forget(id);
    tracing::debug!(?id, why, "connection ended");
    if !outbox.is_closing() {
        events.closed(id);
    }
}

async fn read(
    events: &Events,
    id: ConnectionId,
    outbox: &Outbox,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = reader.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        // What comes after it was closed here is read only so that the other side sees an end and
        // no reset.
        if !outbox.is_closing() {
            events.bytes(id, &piece[..count]);
        }
    }
}

/// Returns when everything was sent after the connection was closed here.
async fn write(outbox: &Outbox, mut writer: Box<dyn AsyncWrite + Send + Unpin>) -> io::Result<()> {
    let closed_for_long = async {
        outbox.closing().await;
        tokio::time::sleep(LINGER).await;
    };
    let writing = async {
        loop {
            match outbox.next() {
                Next::Write(batch) => writer.write_all(&batch).await?,
                Next::Wait => outbox.changed().await,
                Next::End => return writer.shutdown().await,
            }
        }
    };
    tokio::select! {
        result = writing => result,
        () = closed_for_long => Err(io::ErrorKind::TimedOut.into()),
    }
}
