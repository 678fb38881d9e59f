//! Bad sectors: for good, a few times, or until they are written. badblocks(8) looks for them.

use std::process::Command;

use anyhow::ensure;

use super::{Lane, Test, disk::read_under};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::BARE,
    dm_lab::DmDevice,
    driver::{Injection, Report, fault, refused},
    process::Ended,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "bad_sectors::badblocks_finds_them_until_written",
        on: Lane::tests_disks_in_detail,
        run: badblocks,
    },
    Test { name: "bad_sectors::are_bad_a_few_times", on: Lane::tests_disks_in_detail, run: a_few_times },
    Test { name: "bad_sectors::are_mended_by_whatever_writes", on: Lane::tests_disks_in_detail, run: mended },
    Test {
        name: "bad_sectors::are_not_mended_by_what_fails",
        on: Lane::tests_disks_in_detail,
        run: not_mended,
    },
    Test { name: "bad_sectors::are_those_of_dm_dust", on: Lane::tests_disks_in_detail, run: dm_dust },
    Test { name: "bad_sectors::are_sectors", on: Lane::tests_disks_in_detail, run: sectors },
];

/// Blocks 10 and 11 of 4 KiB.
const RANGE: &str = "sectors 80..96";
/// Which of the first 32 blocks of 4 KiB are bad. It reads several at once, and then one by one.
const LOOK: &str = "badblocks -b 4096 /dev/vdb 31 0 | tr '\\n' ' '; echo .;";

fn dd(what: &str) -> String {
    format!("dd if=/dev/zero of={BARE} conv=notrunc count=1 {what} status=none || echo failed;")
}

/// What a script prints, line by line, when it runs under these faults.
fn under(faults: &[&str], script: &str) -> anyhow::Result<Vec<String>> {
    let options = faults.iter().flat_map(|spec| ["--disk", spec]);
    let arguments: Vec<&str> =
        ["run", "--quiet"].into_iter().chain(options).chain(["--", "sh", "-c", script]).collect();
    let ended = Ended::of(&mut fault(&arguments))?;
    ensure!(ended.status.success(), "{faults:?}: {ended:?}");
    Ok(ended.stdout.lines().map(|line| line.trim().to_owned()).collect())
}

/// That is what it prints; and a bystander finds no bad block, afterwards and not because of the writes.
fn finds(faults: &[&str], script: &str, expected: &[&str]) -> anyhow::Result<()> {
    let found = under(faults, script)?;
    ensure!(found == expected, "{faults:?}, {script}: {found:?}");
    Ok(())
}

fn bad() -> String {
    format!("error read on {BARE} {RANGE} until-written")
}

fn badblocks(lane: Lane) -> anyhow::Result<()> {
    let write_10 = dd("bs=4k seek=10 oflag=direct");
    finds(&[&bad()], &format!("{LOOK} {LOOK} {write_10} {LOOK}"), &["10 11 .", "10 11 .", "11 ."])?;
    if lane == Lane::Fault {
        // The other backend sees writes, too.
        let script = format!("{LOOK} {write_10} {LOOK}");
        let run =
            ["run", "--quiet", "--block-backend", "kprobe", "--disk", &bad(), "--", "sh", "-c", &script];
        let ended = Ended::of(&mut fault(&run))?;
        let found: Vec<_> = ended.stdout.lines().map(str::trim).collect();
        ensure!(found == ["10 11 .", "11 ."], "kprobe: {ended:?}");
    }
    // Bad for good.
    let always = format!("error read on {BARE} {RANGE}");
    finds(&[&always], &format!("{LOOK} {write_10} {LOOK}"), &["10 11 .", "10 11 ."])?;
    // A new session, and they are bad again; never for others.
    let told = read_under(BARE, &["--count", "16"], &["--disk", &bad()])?;
    ensure!(told.victim.failed == [10, 11], "{:?}", told.victim);
    ensure!(told.report.rule(0, "injected")? == 2, "{}", told.report.json);
    let bystander = Ended::of(Command::new("sh").args(["-c", LOOK]))?;
    ensure!(bystander.stdout.trim() == ".", "bystander: {bystander:?}");
    Ok(())
}

fn a_few_times(_: Lane) -> anyhow::Result<()> {
    let spec = format!("error read on {BARE} {RANGE} times 3");
    let read =
        format!("dd if={BARE} of=/dev/null bs=4k skip=10 count=1 iflag=direct status=none || echo failed;");
    finds(&[&spec], &format!("{} echo good", read.repeat(5)), &["failed", "failed", "failed", "good"])
}

fn mended(_: Lane) -> anyhow::Result<()> {
    for (write, left) in [
        // Through the page cache: fsync, or the kernel by itself.
        (dd("bs=4k seek=11 conv=fsync,notrunc"), "10 ."),
        (format!("{} sync;", dd("bs=4k seek=10")), "11 ."),
        (dd("bs=64k seek=0 oflag=direct"), "."),
        (format!("blkdiscard --force --offset 40960 --length 4096 {BARE};"), "11 ."),
        (format!("blkdiscard --force --zeroout --offset 40960 --length 8192 {BARE};"), "."),
        // Beside them.
        (dd("bs=4k seek=12 oflag=direct"), "10 11 ."),
    ] {
        finds(&[&bad()], &format!("{LOOK} {write} {LOOK}"), &["10 11 .", left])?;
    }
    // A bystander's write is a write.
    let target = CgroupLab::new("bad")?;
    let injection = Injection::start(&["--cgroup", &target.path(), "--disk", &bad()])?;
    let look =
        || Ended::of(target.command("sh").args(["-c", LOOK])).map(|ended| ended.stdout.trim().to_owned());
    let before = look()?;
    Ended::of(Command::new("sh").args(["-c", &dd("bs=4k seek=11 oflag=direct")]))?;
    let after = look()?;
    let report: Report = injection.heal()?;
    ensure!((before.as_str(), after.as_str()) == ("10 11 .", "10 ."), "{before}, {after}: {}", report.json);
    ensure!(report.counter("forgotten")? == 0, "{}", report.json);
    Ok(())
}

fn not_mended(_: Lane) -> anyhow::Result<()> {
    let write = dd("bs=8k seek=5 oflag=direct 2>/dev/null");
    for fails in ["error", "hang 100ms then error"] {
        let fails = format!("{fails} write nth 1 on {BARE}");
        let script = format!("{write} {LOOK} {write} {LOOK}");
        finds(&[&bad(), &fails], &script, &["failed", "10 11 .", "."])?;
    }
    // Late is not lost.
    let late = format!("delay 50ms write on {BARE}");
    finds(&[&bad(), &late], &format!("{write} {LOOK}"), &["."])
}

fn sectors(_: Lane) -> anyhow::Result<()> {
    let read = |size: u32, skip: u32| {
        format!(
            "dd if={BARE} of=/dev/null bs={size} skip={skip} count=1 iflag=direct status=none || echo {skip} bad;"
        )
    };
    // Of block 11, the first sector is mended: the block cannot be read, the sector can.
    let script = [dd("bs=512 seek=88 oflag=direct"), read(4096, 11), read(512, 88), read(512, 89)].concat();
    finds(&[&bad()], &script, &["11 bad", "89 bad"])?;
    // Many at once, across the words they are remembered in.
    let wide = format!("error read on {BARE} sectors 1000..201000 until-written");
    let script = [
        read(512, 999),
        read(512, 1000),
        dd("bs=1M seek=0 count=50 oflag=direct"),
        read(512, 1000),
        read(512, 102_399),
        read(512, 102_400),
        dd("bs=1M seek=50 count=50 oflag=direct"),
        read(512, 200_999),
        read(512, 102_400),
    ]
    .concat();
    finds(&[&wide], &script, &["1000 bad", "102400 bad"])?;
    // Too many to remember.
    let two = format!("error on {BARE} sectors 0..2000000 until-written");
    let three = [&two[..]; 3].map(|spec| ["--disk", spec]).concat();
    let said = refused(&[&["run"], &three[..], &["--", "true"]].concat(), 2)?;
    ensure!(said.contains("6000000 sectors"), "{said}");
    Ok(())
}

/// Bad sectors that dm-dust has, too: in several of the words they are remembered in.
const DUST: std::ops::Range<u64> = 60..196;

/// Reads and writes of one to four sectors among [`DUST`], each with a line that says how it went.
fn workload(device: &str) -> String {
    let mut state = 1_u64;
    let mut next = |below: u64| {
        // Knuth's MMIX generator: any sequence will do, as long as it is the same for both.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..120)
        .map(|number| {
            let (length, sector) = (1 + next(4), DUST.start - 4 + next(DUST.end - DUST.start + 4));
            let (from, to, place) = match next(3) {
                0 => ("/dev/zero", device, "oflag=direct,seek_bytes conv=notrunc,nocreat seek"),
                _ => (device, "/dev/null", "iflag=direct,skip_bytes skip"),
            };
            format!(
                "dd if={from} of={to} bs={} count=1 {place}={} status=none 2>/dev/null && echo {number} good || \
                 echo {number} bad;",
                length * 512,
                sector * 512
            )
        })
        .collect()
}

fn dm_dust(_: Lane) -> anyhow::Result<()> {
    let dust = DmDevice::new("dust", "dust", BARE, "512")?;
    for sector in DUST {
        dust.tell(&format!("addbadblock {sector}"))?;
    }
    dust.tell("enable")?;
    let of_dust = Ended::of(Command::new("sh").args(["-c", &workload(&dust.path)]))?.stdout;
    drop(dust);
    let of_dust: Vec<String> = of_dust.lines().map(str::to_owned).collect();
    let bad = of_dust.iter().filter(|line| line.ends_with("bad")).count();
    ensure!(of_dust.len() == 120 && (20..100).contains(&bad), "dm-dust itself: {of_dust:?}");
    let spec = format!("error read on {BARE} sectors {}..{} until-written", DUST.start, DUST.end);
    finds(&[&spec], &workload(BARE), &of_dust.iter().map(String::as_str).collect::<Vec<_>>())
}
