//! Descriptors of /dev/fuse, and the threads that read requests.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use zerocopy::IntoBytes;

use super::buffer::{Buffers, Message};
use super::reply::Errno;
use crate::protocol::init::{self, Features};
use crate::protocol::layout::OutHeader;
use crate::protocol::{Operation, Request};

nix::ioctl_read!(
    /// `FUSE_DEV_IOC_CLONE`: makes a fresh descriptor one more of the connection that is named.
    clone_device, 229, 0, u32
);

/// One descriptor of the connection. What is read from it is answered on it.
#[derive(Debug)]
pub(crate) struct Channel(File);

impl Channel {
    pub(crate) fn new(device: File) -> Arc<Channel> {
        Arc::new(Channel(device))
    }

    /// One more, of the same connection: its requests are queued for themselves.
    fn try_clone(&self) -> io::Result<Arc<Channel>> {
        let device = open()?;
        let mut of = u32::try_from(self.0.as_raw_fd()).expect("a descriptor");
        // SAFETY: the kernel reads one u32.
        #[expect(unsafe_code, reason = "an ioctl")]
        unsafe { clone_device(device.as_raw_fd(), &raw mut of) }?;
        Ok(Channel::new(device))
    }

    /// In one piece: the kernel takes a message a write.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let written = (&self.0).write_vectored(parts)?;
        if written == len { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next message; `None` when the file system is unmounted.
    fn read(&self, buffers: &Arc<Buffers>) -> io::Result<Option<Message>> {
        let mut message = buffers.take();
        loop {
            match (&self.0).read(message.room()) {
                Ok(len) => {
                    message.set_len(len);
                    return Ok(Some(message));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENODEV) => return Ok(None),
                    // A request that was given up while it was read.
                    Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

pub(crate) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse")
}

/// A connection on which the kernel has said what it can do.
#[derive(Debug)]
pub(crate) struct Device {
    channel: Arc<Channel>,
    buffers: Arc<Buffers>,
}

impl Device {
    /// Waits for the first message, which says what the kernel can do, and answers that of it
    /// `wanted` is used.
    pub(crate) fn greet(device: File, wanted: Features) -> io::Result<(Device, Features)> {
        let (channel, buffers) = (Channel::new(device), Buffers::new());
        loop {
            let Some(message) = channel.read(&buffers)? else {
                return Err(io::Error::other("unmounted before it was served"));
            };
            let request = Request::parse(message.bytes()).map_err(io::Error::other)?;
            let Operation::Init(offer) = request.operation else {
                return Err(io::Error::other("the first message is not INIT"));
            };
            let (answer, features) = init::answer(&offer, wanted);
            let is_spoken = offer.major == init::MAJOR && offer.minor >= init::MINOR_MIN;
            if offer.major < init::MAJOR || offer.major == init::MAJOR && !is_spoken {
                respond(&channel, request.unique, Errno(libc::EPROTO), &[])?;
                let (major, minor) = (offer.major, offer.minor);
                return Err(io::Error::other(format!("the kernel speaks FUSE {major}.{minor}")));
            }
            respond(&channel, request.unique, Errno(0), answer.as_bytes())?;
            if is_spoken {
                return Ok((Device { channel, buffers }, features));
            }
            // A later major version: it asks again in ours.
        }
    }

    /// Reads and hands over requests, each with the channel that it came from and all that there are, in
    /// so many threads, until the file system is unmounted.
    pub(crate) fn serve(
        self,
        threads: usize,
        serve: impl Fn(Message, &Arc<Channel>, &[Arc<Channel>]) + Clone + Send + 'static,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let mut channels = vec![Arc::clone(&self.channel)];
        for _ in 1..threads {
            channels.push(self.channel.try_clone()?);
        }
        let all: Arc<[Arc<Channel>]> = channels.clone().into();
        let spawn = |(i, channel): (usize, Arc<Channel>)| {
            let (buffers, serve, all) =
                (Arc::clone(&self.buffers), serve.clone(), Arc::clone(&all));
            std::thread::Builder::new().name(format!("fuse-{i}")).spawn(move || {
                loop {
                    match channel.read(&buffers) {
                        Ok(Some(message)) => serve(message, &channel, &all),
                        Ok(None) => return,
                        Err(error) => {
                            tracing::warn!(%error, "FUSE connection ended");
                            return;
                        }
                    }
                }
            })
        };
        channels.into_iter().enumerate().map(spawn).collect()
    }
}

fn respond(channel: &Channel, unique: u64, error: Errno, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(size_of::<OutHeader>() + bytes.len()).expect("short");
    let header = OutHeader { len, error: -error.0, unique };
    channel.write(&[header.as_bytes(), bytes].map(IoSlice::new))
}
