//! The subflows of an MPTCP socket: each has a local port of its own.

use std::{
    io,
    mem::{offset_of, size_of},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use socket2::{SockAddr, SockAddrStorage};

/// `SOL_MPTCP` (linux/socket.h).
const SOL_MPTCP: libc::c_int = 284;
/// `MPTCP_SUBFLOW_ADDRS` (linux/mptcp.h), Linux 5.16.
const MPTCP_SUBFLOW_ADDRS: libc::c_int = 3;
/// More subflows than a kernel allows a connection (`MPTCP_SUBFLOWS_MAX` and the first, net/mptcp/protocol.h).
const SUBFLOWS: usize = 16;

/// What the kernel is asked with, and answers: `struct mptcp_subflow_data` (linux/mptcp.h), and as many addresses.
#[repr(C)]
struct Question {
    size_subflow_data: u32,
    num_subflows: u32,
    size_kernel: u32,
    size_user: u32,
    subflows: [Addresses; SUBFLOWS],
}

/// `struct mptcp_subflow_addrs`.
#[repr(C)]
struct Addresses {
    local: SockAddrStorage,
    remote: SockAddrStorage,
}

/// Local ports of the socket's connected subflows.
///
/// # Errors
/// When the kernel does not know the question (before Linux 5.16).
pub fn local_ports(socket: BorrowedFd<'_>) -> io::Result<Vec<u16>> {
    let mut question = Question {
        size_subflow_data: offset_of!(Question, subflows) as u32,
        num_subflows: 0,
        size_kernel: 0,
        size_user: size_of::<Addresses>() as u32,
        subflows: std::array::from_fn(|_| Addresses {
            local: SockAddrStorage::zeroed(),
            remote: SockAddrStorage::zeroed(),
        }),
    };
    let mut length = size_of::<Question>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOL_MPTCP,
            MPTCP_SUBFLOW_ADDRS,
            (&raw mut question).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let addresses = question.subflows.into_iter().take(question.num_subflows as usize);
    let local = addresses.map(|subflow| {
        let length = subflow.local.size_of();
        // SAFETY: filled in by the kernel, or zero: an address of no family.
        unsafe { SockAddr::new(subflow.local, length) }
    });
    Ok(local.filter_map(|address| Some(address.as_socket()?.port())).filter(|port| *port != 0).collect())
}
