//! Block-by-block reading and touching mapped pages, timed.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    report::{Timed, cpu_ns, errno_name, now_ns},
    udp::wait_for_line,
};

/// `fault-victim pread`.
#[derive(Debug, Args)]
pub struct Pread {
    /// A file or block device.
    path: PathBuf,
    /// How many reads (per thread).
    #[arg(long, default_value_t = 50)]
    count: u64,
    /// Bytes each, a multiple of 512.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Offset of the first.
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// Through the page cache instead of `O_DIRECT`.
    #[arg(long)]
    buffered: bool,
    /// Write instead of read.
    #[arg(long)]
    write: bool,
    /// fsync(2) after each write, inside the time.
    #[arg(long)]
    fsync: bool,
    /// Threads, each with offsets of its own.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Thread N on CPU N modulo their number, wherever the scheduler would have put it.
    #[arg(long)]
    spread: bool,
    /// Pause after each, in microseconds.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
    /// Wait for a line on stdin after opening: the file is open before the fault exists.
    #[arg(long)]
    wait: bool,
}

/// Memory aligned for `O_DIRECT`.
#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page(#[expect(dead_code, reason = "read through a byte slice")] [u8; 4096]);

impl Pread {
    /// Reads and times.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn run(&self) -> anyhow::Result<Timed> {
        let mut options = OpenOptions::new();
        options.read(true).write(self.write);
        if !self.buffered {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        if self.wait {
            eprintln!("open");
            wait_for_line()?;
        }
        let (start, cpu) = (now_ns(), cpu_ns());
        let parts: Vec<Timed> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    scope.spawn({
                        let file = &file;
                        move || self.one(file, thread)
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let mut report = Timed::default();
        for part in parts {
            report.latencies_ns.extend(part.latencies_ns);
            report.failed.extend(part.failed);
            report.failed_latencies_ns.extend(part.failed_latencies_ns);
            report.began_ns.extend(part.began_ns);
            report.failed_began_ns.extend(part.failed_began_ns);
            for (name, count) in part.errors {
                *report.errors.entry(name).or_default() += count;
            }
        }
        report.wall_ns = now_ns() - start;
        report.cpu_ns = cpu_ns() - cpu;
        Ok(report)
    }

    fn one(&self, file: &std::fs::File, thread: u64) -> Timed {
        use std::os::unix::fs::FileExt as _;
        let mut report = Timed::default();
        if self.spread
            && let Err(errno) = stay_on(thread)
        {
            report.errors.insert(format!("sched_setaffinity: {errno}"), 1);
        }
        let mut pages = vec![Page([0x5a; 4096]); self.size.div_ceil(4096)];
        // SAFETY: `Page` is plain bytes without padding.
        let buffer: &mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), self.size) };
        for number in 0..self.count {
            let index = thread * self.count + number;
            let offset = self.offset + index * self.size as u64;
            let begin = now_ns();
            let result = if self.write {
                file.write_all_at(buffer, offset)
                    .and_then(|()| if self.fsync { file.sync_all() } else { Ok(()) })
            } else {
                file.read_exact_at(buffer, offset)
            };
            match result {
                Ok(()) => {
                    report.latencies_ns.push(now_ns() - begin);
                    report.began_ns.push(begin);
                }
                Err(error) => {
                    *report.errors.entry(errno_name(&error)).or_default() += 1;
                    report.failed.push(index);
                    report.failed_latencies_ns.push(now_ns() - begin);
                    report.failed_began_ns.push(begin);
                }
            }
            if self.pause_us > 0 {
                std::thread::sleep(std::time::Duration::from_micros(self.pause_us));
            }
        }
        report
    }
}

/// Binds the calling thread to one CPU of those there are.
fn stay_on(number: u64) -> nix::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(number as usize % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// `fault-victim touch`.
#[derive(Debug, Args)]
pub struct Touch {
    /// A file.
    path: PathBuf,
    /// How many pages.
    #[arg(long, default_value_t = 16)]
    count: usize,
    /// Bytes from one to the next.
    #[arg(long, default_value_t = 1 << 16)]
    stride: usize,
    /// Wait for a line on stdin after mapping: the mapping exists before the fault does.
    #[arg(long)]
    wait: bool,
}

impl Touch {
    /// Maps the file and reads one byte of each page; a page that cannot be read is SIGBUS.
    ///
    /// # Errors
    /// When the file cannot be mapped.
    pub fn run(&self) -> anyhow::Result<Timed> {
        use std::os::fd::AsRawFd as _;
        let file =
            std::fs::File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        let length = self.count * self.stride;
        // SAFETY: a new mapping, checked below; it lives as long as the process.
        let base = unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            if base != libc::MAP_FAILED {
                // No read-ahead: each page is a read of its own.
                libc::madvise(base, length, libc::MADV_RANDOM);
            }
            base
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mmap");
        }
        if self.wait {
            eprintln!("open");
            wait_for_line()?;
        }
        let mut report = Timed::default();
        let (start, cpu) = (now_ns(), cpu_ns());
        for number in 0..self.count {
            let begin = now_ns();
            // SAFETY: inside of the mapping. Beyond the end of the file, or unreadable, is SIGBUS, which is the point.
            std::hint::black_box(unsafe { base.cast::<u8>().add(number * self.stride).read_volatile() });
            report.latencies_ns.push(now_ns() - begin);
        }
        report.wall_ns = now_ns() - start;
        report.cpu_ns = cpu_ns() - cpu;
        Ok(report)
    }
}
