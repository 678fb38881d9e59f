//! QEMU's monitor (its `-monitor stdio`), for a guest that cannot be asked any more.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How often the processors are looked at, to tell one that waits from one that runs in circles.
const LOOKS: usize = 3;
/// Between two looks; QEMU answers within milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// What the guest's processors are at, a few times in a row, in QEMU's words; what could be learned if not all can.
pub fn registers(qemu: &mut Child) -> String {
    let (Some(mut monitor), Some(mut answers)) = (qemu.stdin.take(), qemu.stdout.take()) else {
        return String::new();
    };
    let (sender, receiver) = channel();
    // A QEMU that hangs does not answer: whoever waits for it does so elsewhere.
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = answers.read(&mut buffer) {
            if sender.send(buffer.get(..n).unwrap_or_default().to_vec()).is_err() {
                break;
            }
        }
    });
    let said = (0..LOOKS).flat_map(|_| ask(&mut monitor, &receiver, "info registers -a")).collect::<Vec<_>>();
    String::from_utf8_lossy(&said).into_owned()
}

fn ask(monitor: &mut ChildStdin, answers: &Receiver<Vec<u8>>, question: &str) -> Vec<u8> {
    if monitor.write_all(format!("{question}\n").as_bytes()).and_then(|()| monitor.flush()).is_err() {
        return Vec::new();
    }
    thread::sleep(PAUSE);
    answers.try_iter().flatten().collect()
}

/// Of all registers, the lines that say where each processor is, and whether it waits (`HLT=1`).
pub fn places(registers: &str) -> impl Iterator<Item = &str> {
    registers.lines().map(str::trim).filter(|line| line.starts_with("CPU#") || line.starts_with("RIP="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_each_processor_is() {
        let said = "(qemu) info registers -a\r\n\r\nCPU#0\r\nRAX=0000000000000004 RBX=ff1100013ba31c40\r\n\
                    RIP=ffffffff81a52c2b RFL=00000002 [-------] CPL=0 II=1 A20=1 SMM=0 HLT=0\r\nCPU#1\r\n\
                    RIP=ffffffff8104a62d RFL=00000082 [--S----] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n";
        let places: Vec<_> = places(said).collect();
        assert_eq!(places.len(), 4, "{places:?}");
        assert!(places[0] == "CPU#0" && places[1].starts_with("RIP=ffffffff81a52c2b"), "{places:?}");
        assert!(places[3].ends_with("HLT=1"), "{places:?}");
    }
}
