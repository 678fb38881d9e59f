//! Small real programs that live through faults and report what they saw, as one JSON object on stdout.
//!
//! They know nothing of `fault`. Each is a subcommand of `fault-victim`.

pub mod disk;
pub mod flood;
pub mod http;
pub mod many;
pub mod report;
pub mod segments;
pub mod stream;
pub mod tcp;
pub mod udp;

use clap::{Parser, Subcommand};

/// The command line of `fault-victim`.
#[derive(Debug, Parser)]
#[command(about = "Programs that live through faults and say what they saw")]
pub struct Cli {
    /// Which program.
    #[command(subcommand)]
    pub program: Program,
}

/// The programs.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// Send numbered datagrams
    UdpSend(udp::Send),
    /// Count numbered datagrams until they stop coming
    UdpCount(udp::Count),
    /// Send datagrams as fast as possible, or for a time
    UdpFlood(flood::Flood),
    /// Count such datagrams
    UdpSink(flood::Sink),
    /// A TCP server that echoes on many connections
    ManyEcho(many::Echo),
    /// Hold many connections to it, send on all and compare
    ManyHold(many::Hold),
    /// A TCP server that forks a child per connection and echoes lines
    TcpEcho(tcp::Echo),
    /// Time request and answer on one TCP connection
    TcpPing(tcp::Ping),
    /// Send a known stream of bytes over one TCP connection
    StreamSend(stream::Send),
    /// Take one such stream and compare it
    StreamTake(stream::Take),
    /// Look at each packet of a TCP stream that arrives
    Segments(segments::Segments),
    /// Read a file or device block by block and time each read
    Pread(disk::Pread),
    /// Map a file, touch page by page and time each
    Touch(disk::Touch),
    /// Ask an HTTP service again and again, and check its health
    Ask(http::Ask),
}

/// Runs the program and prints its report.
///
/// # Errors
/// When the program could not do its work at all; what faults do to it is part of the report.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.program {
        Program::UdpSend(program) => report::print(&program.run()?),
        Program::UdpCount(program) => report::print(&program.run()?),
        Program::UdpFlood(program) => report::print(&program.run()?),
        Program::UdpSink(program) => report::print(&program.run()?),
        Program::ManyEcho(program) => program.run(),
        Program::ManyHold(program) => report::print(&program.run()?),
        Program::TcpEcho(program) => program.run(),
        Program::TcpPing(program) => report::print(&program.run()?),
        Program::StreamSend(program) => report::print(&program.run()?),
        Program::StreamTake(program) => report::print(&program.run()?),
        Program::Segments(program) => report::print(&program.run()?),
        Program::Pread(program) => report::print(&program.run()?),
        Program::Touch(program) => report::print(&program.run()?),
        Program::Ask(program) => report::print(&program.run()?),
    }
}
