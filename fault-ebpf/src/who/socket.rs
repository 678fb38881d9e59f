//! Does this socket belong to the target, and where does it stand in the random sequences?

use core::ptr::{self, NonNull};

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, BPF_TCP_NEW_SYN_RECV, bpf_sock, bpf_sock_tuple,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{
        bpf_get_listener_sock, bpf_sk_lookup_udp, bpf_sk_release, bpf_sk_storage_get, bpf_skc_lookup_tcp,
    },
};
use fault_common::{
    rule::net::Direction,
    who::{Connection, SocketState, Stream, port_bit},
};

use super::subflow;
use crate::{
    maps::{LOCAL_PORTS, SOCKETS},
    net::{
        scene::Scene,
        segment::{Carried, received},
    },
};

/// Where decisions about a packet of the target are remembered. The pointers lead into a map value and stay valid until
/// the program ends.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Latest departure from the lane asked for in this direction.
    pub departure_ns: *mut u64,
    /// Where decisions in this direction stand.
    pub stream: *mut Stream,
    /// Which connection it is.
    pub connection: *mut Connection,
}

/// A socket of the target. Not null by its type: an `Option` of it is one register to the verifier, not two.
#[derive(Clone, Copy)]
pub struct Member(NonNull<SocketState>);

impl Member {
    /// Whether the state was written for the socket with this cookie, and not for the listener that accepted it.
    #[inline(always)]
    pub fn is_original(self, cookie: u64) -> bool {
        // SAFETY: a map value.
        let known = unsafe { (*self.0.as_ptr()).cookie };
        known == 0 || known == cookie
    }

    /// Where decisions about packets in `direction` stand.
    #[inline(always)]
    pub fn stream(self, direction: Direction) -> *mut Stream {
        let index = match direction {
            Direction::Out => 0,
            Direction::In => 1,
        };
        // SAFETY: a map value.
        unsafe { &raw mut (*self.0.as_ptr()).streams[index] }
    }

    /// What a decision about a packet in `direction` needs; who it is goes into the scene.
    #[inline(always)]
    pub fn owner(self, direction: Direction, scene: &mut Scene) -> Owner {
        let index = match direction {
            Direction::Out => 0,
            Direction::In => 1,
        };
        let state = self.0.as_ptr();
        // SAFETY: a map value; racing programs on other CPUs touch plain numbers only.
        unsafe {
            scene.tgid = (*state).tgid;
            scene.cgroup = (*state).cgroup;
            scene.is_connection = ((*state).listening == 0) as u32;
            Owner {
                departure_ns: &raw mut (*state).departure_ns[index],
                stream: &raw mut (*state).streams[index],
                connection: &raw mut (*state).connection,
            }
        }
    }
}

/// The storage of `sock` (a `bpf_sock` of any kind, or the context of a socket hook); null when it has none.
///
/// # Safety
/// The verifier must know `sock` as such a pointer.
#[inline(always)]
pub unsafe fn storage(sock: *mut bpf_sock, flags: u64) -> *mut SocketState {
    // SAFETY: the helper creates the zeroed value itself when `flags` asks for one.
    unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sock.cast(), ptr::null_mut(), flags).cast() }
}

/// The member behind `sock`, not null, of any state.
///
/// A connection that is not established yet is only a request; the listener answers for it.
///
/// # Safety
/// As for [`storage`].
#[inline(always)]
pub unsafe fn member(sock: *mut bpf_sock) -> Option<Member> {
    // SAFETY: the caller's promise; the field is readable for every kind of socket.
    let (mut state, mut kind) = unsafe { (storage(sock, 0), (*sock).state) };
    if state.is_null() {
        if kind == BPF_TCP_NEW_SYN_RECV {
            // SAFETY: as above.
            let listener = unsafe { bpf_get_listener_sock(sock) };
            if listener.is_null() {
                return None;
            }
            kind = BPF_TCP_LISTEN;
            // SAFETY: a listener is never freed while the program runs (SOCK_RCU_FREE).
            state = unsafe { storage(listener, 0) };
            if state.is_null() {
                // SAFETY: as above.
                state = unsafe { subflow::adopt(listener) };
            }
        } else {
            // SAFETY: the caller's promise.
            state = unsafe { subflow::adopt(sock) };
        }
        if state.is_null() {
            return None;
        }
    }
    // SAFETY: a map value, not null.
    let state_ref = unsafe { &mut *state };
    if state_ref.member == 0 {
        return None;
    }
    if kind == BPF_TCP_LISTEN {
        state_ref.listening = 1;
    } else if state_ref.listening != 0 {
        // An accepted socket starts life as a copy of its listener: give it sequences of its own.
        state_ref.listening = 0;
        state_ref.departure_ns = [0; 2];
        state_ref.streams[0].number = 0;
        state_ref.streams[1].number = 0;
        state_ref.connection.number = 0;
    }
    NonNull::new(state).map(Member)
}

/// Who a packet is for or from: what the look-up of a socket is given. Too big for the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tuple {
    key: bpf_sock_tuple,
    /// Length of what is used of `key`; of IPv4 or of IPv6.
    size: u32,
    is_udp: u32,
}

/// The two ends of a conversation. Ports in host byte order.
pub struct Ends<'a> {
    /// Network byte order, IPv4 mapped.
    pub remote: &'a [u32; 4],
    /// Network byte order, IPv4 mapped.
    pub local: &'a [u32; 4],
    pub remote_port: u16,
    pub local_port: u16,
    pub is_v4: bool,
    pub is_udp: bool,
}

impl Tuple {
    /// Names the conversation as the owner of the local end would receive it.
    #[inline(always)]
    pub fn name(&mut self, ends: &Ends<'_>) {
        let (sport, dport) = (ends.remote_port.to_be(), ends.local_port.to_be());
        self.size = if ends.is_v4 {
            self.key.__bindgen_anon_1.ipv4 =
                TupleV4 { saddr: ends.remote[3], daddr: ends.local[3], sport, dport };
            size_of::<TupleV4>() as u32
        } else {
            self.key.__bindgen_anon_1.ipv6 =
                TupleV6 { saddr: *ends.remote, daddr: *ends.local, sport, dport };
            size_of::<TupleV6>() as u32
        };
        self.is_udp = u32::from(ends.is_udp);
    }
}

/// The member that is party to `tuple`, looked up in the namespace of the packet's device, and if it is `wanted`, what its
/// connection has received.
///
/// # Safety
/// `context` must be the context of a classifier.
#[inline(always)]
pub unsafe fn look_up(
    context: *mut core::ffi::c_void,
    tuple: &mut Tuple,
    wanted: bool,
    carried: &mut Carried,
) -> Option<Member> {
    carried.is_known = 0;
    carried.bound = 0;
    // Two numbers, so that the verifier knows the size.
    let size =
        if tuple.size == size_of::<TupleV4>() as u32 { size_of::<TupleV4>() } else { size_of::<TupleV6>() };
    let (size, key) = (size as u32, &raw mut tuple.key);
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // Two ways all along: the verifier wants one instruction to see one kind of pointer, and a UDP socket has no
    // state to ask for.
    if tuple.is_udp != 0 {
        // SAFETY: `key` is a map value and as long as `size` says; the socket is released exactly once,
        // and its storage outlives it by RCU.
        unsafe {
            let sock = bpf_sk_lookup_udp(context, key, size, netns, 0);
            if sock.is_null() {
                return None;
            }
            let state = storage(sock, 0);
            carried.bound = (*sock).bound_dev_if;
            bpf_sk_release(sock.cast());
            NonNull::new(state).filter(|state| (*state.as_ptr()).member != 0).map(Member)
        }
    } else {
        // SAFETY: as above.
        unsafe {
            let sock = bpf_skc_lookup_tcp(context, key, size, netns, 0);
            if sock.is_null() {
                return None;
            }
            let member = member(sock);
            carried.bound = (*sock).bound_dev_if;
            if wanted && member.is_some() {
                received(sock, carried);
            }
            bpf_sk_release(sock.cast());
            member
        }
    }
}

/// Who a packet of IPv4 is for and from, in network byte order: [`look_up_v4`].
pub type FourTuple = TupleV4;

/// As [`look_up`], of IPv4, and without asking about the connection.
///
/// # Safety
/// `context` must be the context of a classifier.
#[inline(always)]
pub unsafe fn look_up_v4(context: *mut core::ffi::c_void, tuple: &FourTuple, is_udp: bool) -> Option<Member> {
    let (size, key) = (size_of::<FourTuple>() as u32, ptr::from_ref(tuple).cast_mut().cast());
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: `key` is as long as `size` says; for the rest see `look_up`.
    unsafe {
        if is_udp {
            let sock = bpf_sk_lookup_udp(context, key, size, netns, 0);
            if sock.is_null() {
                return None;
            }
            let state = storage(sock, 0);
            bpf_sk_release(sock.cast());
            NonNull::new(state).filter(|state| (*state.as_ptr()).member != 0).map(Member)
        } else {
            let sock = bpf_skc_lookup_tcp(context, key, size, netns, 0);
            if sock.is_null() {
                return None;
            }
            let member = member(sock);
            bpf_sk_release(sock.cast());
            member
        }
    }
}

/// Whether a socket of the target may be bound to this local port.
#[inline(always)]
pub fn is_local_port(is_udp: bool, port: u16) -> bool {
    let (word, bit) = port_bit(is_udp, port);
    LOCAL_PORTS.get(word).is_some_and(|word| word.load() & bit != 0)
}

/// Remembers that a socket of the target is bound to this local port.
#[inline(always)]
pub fn learn_local_port(is_udp: bool, port: u16) {
    let (word, bit) = port_bit(is_udp, port);
    if let Some(word) = LOCAL_PORTS.get(word)
        && word.load() & bit == 0
    {
        word.set_bits(bit);
    }
}
