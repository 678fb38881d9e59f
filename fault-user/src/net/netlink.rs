//! Synchronous rtnetlink: a socket inside one namespace, requests with acknowledgement, dumps.
//!
//! A netlink socket belongs to the namespace it was made in, for good: only making it needs a thread there.
//! Requests are built with `netlink-packet-route`. Answers are read attribute by attribute: a device kind or
//! queueing discipline the crate does not know must not make a session fail.

use std::{fmt, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    error::{NetError, Result},
    netns::NetnsHandle,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// Attributes follow the error (`NETLINK_EXT_ACK`).
const NLM_F_ACK_TLVS: u16 = 0x200;
/// A dump raced with a change and is incomplete.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel said no with.
#[derive(Debug)]
pub(super) struct Refusal {
    pub errno: i32,
    pub message: Option<String>,
}

impl Refusal {
    /// The error for `operation` on `object`.
    pub fn into_error(self, operation: &'static str, object: impl Into<String>) -> NetError {
        NetError::refused(operation, object, self.message, io::Error::from_raw_os_error(self.errno))
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), message: None }
    }
}

/// One message of an answer: its type and everything behind the netlink header.
#[derive(Debug)]
pub(super) struct Answer {
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// A netlink socket of one namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in `netns`.
    pub fn open(netns: &NetnsHandle) -> Result<Self> {
        netns.run_in(|| {
            let open = || -> io::Result<Socket> {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.bind_auto()?;
                socket.connect(&SocketAddr::new(0, 0))?;
                socket.set_ext_ack(true)?;
                socket.set_cap_ack(true)?;
                Ok(socket)
            };
            let socket =
                open().map_err(|error| NetError::os("open a netlink socket in", netns.to_string(), error))?;
            Ok(Self { socket, sequence: 0 })
        })
    }

    /// Sends `message` and waits for the kernel's verdict.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.collect(false).map(|_| ())
    }

    /// Asks for one object.
    pub fn get(&mut self, message: RouteNetlinkMessage) -> Result<Option<Answer>, Refusal> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.collect(false).map(|mut answers| answers.pop())
    }

    /// Asks for a list; starts over when the list changed meanwhile.
    pub fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<Answer>, Refusal> {
        const ATTEMPTS: u32 = 16;
        let mut attempt = 0;
        loop {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            match self.collect(true) {
                Err(Refusal { errno: libc::EINTR, .. }) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        loop {
            match self.socket.send(&bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads until the acknowledgement (or, of a dump, the end) of the last request.
    fn collect(&mut self, dump: bool) -> Result<Vec<Answer>, Refusal> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            for (header, payload) in messages(&datagram) {
                if header.sequence != self.sequence {
                    // Left over from a request given up earlier.
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_ERROR => match verdict(header.flags, payload) {
                        None => return Ok(answers),
                        Some(refusal) => return Err(refusal),
                    },
                    NLMSG_DONE if dump && interrupted => {
                        return Err(Refusal { errno: libc::EINTR, message: None });
                    }
                    NLMSG_DONE => {
                        return match payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                            0 => Ok(answers),
                            code => Err(Refusal { errno: -code, message: None }),
                        };
                    }
                    kind => answers.push(Answer { kind, payload: payload.to_vec() }),
                }
            }
        }
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// The part of a netlink header that answers are sorted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
}

/// Takes a datagram apart; stops at the first message that does not fit.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let head = datagram.first_chunk::<NLMSG_HEADER>()?;
        let length = u32_at(head, 0)? as usize;
        let payload = datagram.get(NLMSG_HEADER..length)?;
        let kinds = u32_at(head, 4)?.to_ne_bytes();
        let header = Header {
            kind: u16::from_ne_bytes([kinds[0], kinds[1]]),
            flags: u16::from_ne_bytes([kinds[2], kinds[3]]),
            sequence: u32_at(head, 8)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    })
}

/// The kernel's verdict; none is "done".
fn verdict(flags: u16, payload: &[u8]) -> Option<Refusal> {
    let errno = payload.first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code));
    // `struct nlmsgerr`: the error, then the header of the refused message (NETLINK_CAP_ACK leaves out its body).
    let words = payload
        .get(4 + NLMSG_HEADER..)
        .filter(|_| flags & NLM_F_ACK_TLVS != 0)
        .and_then(|rest| attribute(rest, NLMSGERR_ATTR_MSG).map(|text| string(&text)));
    (errno != 0).then_some(Refusal { errno, message: words })
}

/// Value of the first attribute of type `kind`.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(|attribute| attribute.ok())
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)
        .map(|attribute| attribute.value().to_vec())
}

/// A C string.
pub(super) fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// A native `u32`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// A native `u64`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}
