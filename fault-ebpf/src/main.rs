//! The kernel half of `fault`: thin hooks. Each looks up who, asks `fault_common::decide` what happens, does
//! it and counts it.
//!
//! ```text
//! packet  net::egress | net::ingress → net::headers → who::socket → decide → pass | swallow | net::lane
//! bio     block::decide → who::bio → decide → pass | fail | leave a deadline for block::park
//! file    file::hooks → file::judge → file::path → decide → pass | fail
//! life    life::fork, life::exit: descendants of the target;  net::sockets: sockets it makes
//! ```
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]

mod block;
mod decision;
mod emit;
mod file;
mod globals;
mod kernel;
mod life;
mod maps;
mod net;
mod who;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses programs that could.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
