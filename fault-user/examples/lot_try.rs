use fault_user::block::parking_lot::*;
fn now() -> u64 {
    fault_user::kernel::control::monotonic_ns()
}
fn main() {
    for threads in [1u64, 64] {
        let lot = ParkingLot::start(Slots::anonymous(128).unwrap(), None).unwrap();
        for d in [1_000_000u64, 10_000_000, 100_000_000] {
            let n = if d > 50_000_000 { 10 } else { 100 };
            let all = std::sync::Mutex::new(Vec::new());
            std::thread::scope(|s| {
                for t in 0..threads {
                    let (lot, all) = (&lot, &all);
                    s.spawn(move || {
                        for _ in 0..n {
                            let dl = now() + d;
                            lot.slots().set_deadline(t, dl);
                            lot.touch(t).unwrap();
                            let w = now();
                            all.lock().unwrap().push(w as i64 - dl as i64);
                        }
                    });
                }
            });
            let mut v = all.into_inner().unwrap();
            v.sort();
            println!(
                "threads {threads} delay {} ms: late us min {} median {} p99 {} max {}",
                d / 1_000_000,
                v[0] / 1000,
                v[v.len() / 2] / 1000,
                v[v.len() * 99 / 100] / 1000,
                v[v.len() - 1] / 1000
            );
        }
        println!("{:?}", lot.stats());
        let t = std::time::Instant::now();
        let a = lot.stats().answered;
        std::thread::scope(|s| {
            for t in 0..threads {
                let lot = &lot;
                s.spawn(move || {
                    for _ in 0..(20000 / threads) {
                        lot.slots().set_deadline(t, now() + 1000);
                        lot.touch(t).unwrap();
                    }
                });
            }
        });
        println!(
            "threads {threads}: {} parks/s",
            (lot.stats().answered - a) as f64 / t.elapsed().as_secs_f64()
        );
    }
}
