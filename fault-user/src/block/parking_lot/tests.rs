//! A parked task is simulated by a thread that reads the helper's memory through `/proc/PID/mem`:
//! the kernel takes the same path into the page fault as for `bpf_copy_from_user_task`.

use super::answerer::now_ns;
use super::*;
use std::time::{Duration, Instant};

const MS: u64 = 1_000_000;

fn lot(slots: u32) -> ParkingLot {
    let slots = Slots::anonymous(slots).expect("slots");
    ParkingLot::start(slots, None).expect("a parking lot (needs root and /dev/fuse)")
}

/// Sleeps as the kernel's program does: tasks are answered a little early, and who wakes before the deadline sleeps the
/// rest. How many naps that took.
fn sleep_until(lot: &ParkingLot, slot: u64, deadline: u64) -> u64 {
    lot.slots().set_deadline(slot, deadline);
    for nap in 1..=2 {
        assert_eq!(lot.touch(slot).expect("helper").raw_os_error(), Some(libc::EIO));
        let now = now_ns();
        lot.slots().set_woke(slot, now);
        if now >= deadline {
            return nap;
        }
    }
    panic!("woken before the deadline twice");
}

fn park(lot: &ParkingLot, slot: u64, delay_ns: u64) -> u64 {
    sleep_until(lot, slot, now_ns() + delay_ns)
}

/// Parks until somebody answers, deadline or not; how long that took.
fn park_once(lot: &ParkingLot, slot: u64, delay_ns: u64) -> Duration {
    let begin = Instant::now();
    lot.slots().set_deadline(slot, now_ns() + delay_ns);
    assert_eq!(lot.touch(slot).expect("helper").raw_os_error(), Some(libc::EIO));
    begin.elapsed()
}

#[test]
fn a_parked_task_sleeps_until_its_deadline_and_never_less() {
    let lot = lot(64);
    let mut naps = 0;
    for delay_ms in [0, 1, 10, 50] {
        let begin = Instant::now();
        naps += park(&lot, 7, delay_ms * MS);
        let slept = begin.elapsed();
        assert!(slept >= Duration::from_millis(delay_ms), "{delay_ms} ms became {slept:?}");
    }
    let stats = lot.stats();
    assert_eq!(stats.parked, 0);
    assert_eq!(stats.full, 0);
    // Warming up touches every slot once, and one more read teaches the kernel not to interrupt.
    assert_eq!(stats.answered, 64 + REHEARSALS + 1 + naps, "{stats:?}");
}

#[test]
fn a_parked_task_waits_as_for_a_disk() {
    let lot = lot(4);
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn({
            let lot = &lot;
            move || {
                tell.send(rustix::thread::gettid()).expect("the test listens");
                park(lot, 1, 300 * MS);
            }
        });
        let thread = told.recv().expect("the thread says who it is").as_raw_nonzero();
        while lot.stats().parked < 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).expect("stat");
        assert!(stat.contains(") D "), "uninterruptible: {stat}");
    });
}

#[test]
fn the_same_page_can_be_parked_on_again_at_once() {
    let lot = lot(1);
    let warm = lot.stats().answered;
    let naps: u64 = (0..200).map(|_| park(&lot, 0, 100_000)).sum();
    assert_eq!(lot.stats().answered, warm + naps);
}

#[test]
fn many_tasks_are_parked_at_once_and_leave_in_the_order_of_their_deadlines() {
    const TASKS: u64 = 64;
    // A busy machine runs those it has woken in an order of its own, a lot that is wrong does so every time.
    let mut orders = Vec::new();
    for _ in 0..5 {
        let lot = lot(TASKS as u32);
        let order = std::sync::Mutex::new(Vec::new());
        let begin = now_ns();
        std::thread::scope(|scope| {
            for task in 0..TASKS {
                let (lot, order) = (&lot, &order);
                scope.spawn(move || {
                    let deadline = begin + 300 * MS + task * 10 * MS;
                    sleep_until(lot, task, deadline);
                    order.lock().expect("no panic").push(task);
                });
            }
        });
        let stats = lot.stats();
        assert_eq!(u64::from(stats.parked_max), TASKS);
        assert_eq!(stats.full + stats.released, 0);
        let order = order.into_inner().expect("no panic");
        if order.windows(2).filter(|w| w[0] > w[1]).count() <= 2 {
            return;
        }
        orders.push(order);
    }
    panic!("10 ms apart, yet out of order each time: {orders:?}");
}

#[test]
fn parked_tasks_cost_neither_themselves_nor_the_lot_any_cpu() {
    let lot = lot(8);
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let after_comm = stat.rsplit(')').next().expect("comm");
        let field = |n: usize| after_comm.split_whitespace().nth(n).expect("field").parse::<u64>();
        field(11).expect("utime") + field(12).expect("stime")
    };
    let before: u64 = lot.pids().map(ticks).iter().sum();
    std::thread::scope(|scope| {
        for slot in 0..8 {
            scope.spawn({
                let lot = &lot;
                move || park_once(lot, slot, 1_000 * MS)
            });
        }
    });
    let used = lot.pids().map(ticks).iter().sum::<u64>() - before;
    assert!(used <= 1, "{used} ticks of CPU in one second of parking");
}

#[test]
fn release_all_wakes_everybody_now_and_from_then_on() {
    let lot = lot(16);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for slot in 0..16 {
            scope.spawn({
                let lot = &lot;
                move || park_once(lot, slot, 50_000 * MS)
            });
        }
        while lot.stats().parked < 16 {
            std::thread::sleep(Duration::from_millis(1));
        }
        lot.release_all().expect("release");
        assert_eq!(lot.stats().parked, 0);
    });
    park_once(&lot, 3, 50_000 * MS);
    assert_eq!(lot.stats().released, 17);
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[test]
fn dropping_the_lot_wakes_everybody_and_ends_its_processes() {
    let lot = lot(4);
    let (pid, base, pids) = (lot.helper_pid(), lot.base_address(), lot.pids());
    lot.slots().set_deadline(2, now_ns() + 50_000 * MS);
    let parked = std::thread::spawn(move || touch(pid, base + 2 * wire::PAGE));
    while lot.stats().parked < 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(lot);
    parked.join().expect("no panic").expect("helper");
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn a_silent_owner_loses_its_parked_tasks() {
    let beat = Box::leak(Box::new(SharedU64::new(0)));
    // SAFETY: leaked, so valid for ever. (Private memory: the answering process sees the value it
    // had at the fork, an owner that never beats again.)
    let heartbeat = unsafe { Heartbeat::new(beat) };
    beat.store(now_ns() - HEARTBEAT_TIMEOUT_NS + 300 * MS);
    let lot = ParkingLot::start(Slots::anonymous(4).expect("slots"), Some(heartbeat)).expect("lot");
    let slept = park_once(&lot, 0, 50_000 * MS);
    assert!(slept < Duration::from_secs(25), "{slept:?}");
    assert_eq!(lot.stats().released, 1);
}

#[test]
fn a_delay_beyond_the_cap_is_cut() {
    let slots = Slots::anonymous(2).expect("slots");
    slots.set_deadline(1, u64::MAX);
    assert_eq!(slots.deadline(1), u64::MAX);
    assert_eq!(slots.deadline(2), 0, "beyond the table means at once");
}

/// SIGKILL of the owner, with somebody parked for 50 s: everybody wakes, nothing is left.
#[test]
fn killing_the_owner_wakes_everybody_and_leaves_nothing() {
    let (from_owner, to_test) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    // SAFETY: glibc keeps malloc usable in the child; it only opens a lot, reports and sleeps.
    let owner = unsafe { libc::fork() };
    if owner == 0 {
        let started = ParkingLot::start(Slots::anonymous(32).expect("slots"), None);
        let Ok(lot) = started else { std::process::abort() };
        for slot in 0..32 {
            lot.slots().set_deadline(slot, now_ns() + 50_000 * MS);
        }
        let mut report = lot.base_address().to_ne_bytes().to_vec();
        report.extend(lot.pids().map(u32::to_ne_bytes).as_flattened());
        let _ = rustix::io::write(&to_test, &report);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    drop(to_test);
    let mut report = [0; 16];
    assert_eq!(rustix::io::read(&from_owner, &mut report).expect("report"), 16);
    let base = u64::from_ne_bytes(report[..8].try_into().expect("8 bytes"));
    let pids = [8, 12].map(|at| u32::from_ne_bytes(report[at..at + 4].try_into().expect("4 bytes")));
    let parked: Vec<_> =
        (0..32).map(|slot| std::thread::spawn(move || touch(pids[0], base + slot * wire::PAGE))).collect();
    std::thread::sleep(Duration::from_millis(200));
    assert!(parked.iter().all(|thread| !thread.is_finished()));
    let killed = Instant::now();
    // SAFETY: a child of ours, not yet reaped.
    unsafe { libc::kill(owner, libc::SIGKILL) };
    for thread in parked {
        thread.join().expect("no panic").expect("helper");
    }
    let woke = killed.elapsed();
    assert!(woke < Duration::from_secs(1), "woke {woke:?} after the owner's death");
    // SAFETY: reaps the child above.
    unsafe { libc::waitpid(owner, std::ptr::null_mut(), 0) };
    let gone = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Orphans are reaped by init, or by nobody in a container: a zombie owns nothing.
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    };
    while !pids.iter().all(gone) {
        assert!(killed.elapsed() < Duration::from_secs(5), "processes outlived their owner");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Throughput by count: 4 000 parks that are due at once plus 4 000 of 1 ms by 8 threads.
#[test]
fn every_read_is_answered_exactly_once() {
    let lot = lot(8);
    let warm = lot.stats().answered;
    let naps: u64 = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8)
            .map(|slot| {
                let lot = &lot;
                scope.spawn(move || -> u64 {
                    (0..500).map(|_| park(lot, slot, 0) + park(lot, slot, MS)).sum()
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().expect("no panic")).sum()
    });
    let stats = lot.stats();
    assert!(naps >= 8_000);
    assert_eq!(stats.answered, warm + naps);
    assert_eq!(stats.parked + stats.full as u32 + stats.released as u32, 0);
}
