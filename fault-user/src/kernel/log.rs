//! What the programs say through aya-log, for whoever develops the hooks: feature `log`, off in what ships.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// Prints every line as it comes.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("ebpf: {} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Follows the log of `ebpf` until the runtime ends. Says so when there is none; nothing depends on it.
pub fn follow(ebpf: &mut Ebpf) {
    let logger = match EbpfLogger::init_with_logger(ebpf, Stderr) {
        Ok(logger) => logger,
        Err(error) => return eprintln!("ebpf: no log: {error}"),
    };
    // SAFETY: the descriptor belongs to the logger, which the AsyncFd owns and never replaces.
    match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
        Ok(mut logger) => drop(tokio::spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })),
        Err(error) => eprintln!("ebpf: no log: {}", std::io::Error::from(error)),
    }
}
