use aya::maps::{HashMap, PerCpuArray};
use fault_common::{
    control::Bank,
    decide::{delay::Delay, trigger::Trigger},
    rule::{Layer, Rule, Verb, block::*},
};
use fault_user::{
    block::{fields, hooks::*},
    kernel::{btf::Btf, control::monotonic_ns, load, modify_return::Copies},
};
use std::os::unix::process::CommandExt;
use std::process::Command;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodRule(Rule);
unsafe impl aya::Pod for PodRule {}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let split = args.iter().position(|a| a == "--").unwrap();
    let get =
        |k: &str| args[..split].iter().find_map(|a| a.strip_prefix(&format!("{k}=")).map(str::to_owned));
    let num = |k: &str, d: u64| get(k).map_or(d, |v| v.parse().unwrap());
    let t0 = std::time::Instant::now();
    let btf = Btf::vmlinux()?;
    let globals = fields::globals(&btf)?;
    eprintln!("btf+fields {:?} {:?}", t0.elapsed(), get("fields").map(|_| &globals));
    let verb = match get("verb").as_deref() {
        Some("error") => Verb::Error,
        Some("hang") => Verb::DelayThenError,
        _ => Verb::Delay,
    };
    let delays = verb != Verb::Error || num("delays", 0) == 1;
    let t = std::time::Instant::now();
    let mut loaded = load::load(&globals, load::Sizes { parking: delays, events: false })?;
    eprintln!("load {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let copies = Copies::new(&loaded.ebpf)?;
    eprintln!("copies {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let choice = match get("backend").as_deref() {
        Some("kprobe") => Choice::Kprobe,
        Some("fmod_ret") => Choice::ModifyReturn,
        _ => Choice::Auto,
    };
    let hooks = match BlockHooks::arm(&mut loaded, &copies, &btf, &Wanted { choice, delays, device: None }) {
        Ok(h) => h,
        Err(e) => {
            eprintln!(
                "class {:?}: {}",
                e.class(),
                anyhow::Error::from(e).chain().map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
            );
            std::process::exit(1)
        }
    };
    eprintln!("arm {:?} backend {} parkers {}", t.elapsed(), hooks.backend().name(), hooks.parkers());
    let dev = get("on").map(|d| fault_user::block::device::resolve(d.as_ref()).unwrap());
    let rule = Rule {
        id: 0,
        layer: Layer::Disk as u32,
        verb: verb as u32,
        trigger: Trigger {
            nth: num("nth", 0),
            times: num("times", 0),
            every: num("every", 0),
            ..Trigger::ALWAYS
        },
        delay: Delay { mean_ns: num("delay_us", 0) * 1000, ..Delay::default() },
        block: BlockFilter {
            ops: num("ops", 0) as u32,
            device: dev.map_or(0, |d| d.dev),
            whole_disk: dev.map_or(0, |d| d.whole_disk as u32),
            sector_start: num("from", 0),
            sector_end: num("to", 0),
            ..Default::default()
        },
        ..Rule::default()
    };
    let bank = (loaded.control.bank() ^ 1) as u32;
    {
        let mut rules: aya::maps::Array<_, PodRule> = loaded.ebpf.map_mut("RULES").unwrap().try_into()?;
        rules.set(bank * 64, PodRule(rule), 0)?;
    }
    loaded.control.set_bank(bank, Bank { disk: 1, ..Default::default() });
    loaded.control.generation.store(loaded.control.generation.load() + 1);
    loaded.control.started_ns.store(monotonic_ns());
    loaded.control.active.store(num("active", 1) as u32);
    let control = unsafe {
        std::mem::transmute::<&fault_common::control::Control, &'static fault_common::control::Control>(
            &*loaded.control,
        )
    };
    std::thread::spawn(move || {
        loop {
            control.heartbeat_ns.store(monotonic_ns());
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
    });
    let (r, w) = nix::unistd::pipe()?;
    let (pr, pw) = nix::unistd::pipe()?;
    let mut cmd = Command::new(&args[split + 1]);
    cmd.args(&args[split + 2..]);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&r);
    let pfd = std::os::fd::AsRawFd::as_raw_fd(&pw);
    unsafe {
        cmd.pre_exec(move || {
            let p = libc::getpid().to_ne_bytes();
            libc::write(pfd, p.as_ptr().cast(), 4);
            let mut b = [0u8];
            libc::read(fd, b.as_mut_ptr().cast(), 1);
            Ok(())
        });
    }
    let child = std::thread::spawn(move || cmd.spawn().unwrap().wait().unwrap());
    let mut b = [0u8; 4];
    nix::unistd::read(&pr, &mut b)?;
    let pids = vec![u32::from_ne_bytes(b)];
    if num("target", 1) == 1 {
        let mut tasks: HashMap<_, u32, u32> = loaded.ebpf.map_mut("TASKS").unwrap().try_into()?;
        for p in pids.iter().filter(|p| !hooks.pids().contains(p)) {
            tasks.insert(p, 1, 0)?;
        }
    }
    nix::unistd::write(&w, b"x")?;
    let status = child.join().unwrap();
    let counters: PerCpuArray<_, u64> = loaded.ebpf.map("COUNTERS").unwrap().try_into()?;
    let names = ["Parked", "Overflow", "Failed", "Forbidden", "SelfTest", "Punted"];
    let sums: Vec<String> = names
        .iter()
        .zip(6..)
        .map(|(n, i)| format!("{n}={}", counters.get(&i, 0).unwrap().iter().sum::<u64>()))
        .collect();
    let c = loaded.counters.rule(bank, 0);
    eprintln!(
        "status {status} matched {} injected {} delay_ms {} {}",
        c.matched.load(),
        c.injected.load(),
        c.delay_ns.load() / 1_000_000,
        sums.join(" ")
    );
    if let Some(p) = hooks.parking() {
        eprintln!("{p:?}");
    }
    loaded.control.active.store(0);
    let t = std::time::Instant::now();
    hooks.heal()?;
    eprintln!("heal {:?}", t.elapsed());
    Ok(())
}
