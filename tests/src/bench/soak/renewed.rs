//! A link of `rate` that comes into force a second time must be as empty as the first time.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use fault_user::{
    session::{
        End,
        active::Signals,
        arm::{Armed, Request},
        plan::Plan,
    },
    spec::{Layer, parse},
    target::Target as Victims,
};

use crate::{
    bench::Setting,
    driver::victim,
    net_lab::{NetLab, PEER_V4},
    process::Process,
    victim::report::{Flooded, Sunk},
};

/// Far more than is sent.
const LINK: &str = "rate 100mbit out udp";
/// Needs the same of the kernel, and looks at no datagram.
const NOTHING: &str = "rate 100mbit out tcp";
/// How long it is in force for the first time: longer than its queue, which is a second.
const FIRST: Duration = Duration::from_secs(4);
/// And the second time.
const AGAIN: Duration = Duration::from_secs(2);

/// Datagrams that are lost though nobody asked for it.
pub(super) fn lost(setting: &Setting) -> anyhow::Result<f64> {
    let lab = NetLab::new("bench-link")?;
    let (program, to) = (victim()?, format!("{PEER_V4}:9000"));
    let mut sink = lab.in_peer(&program);
    let sink = Process::start_until(sink.args(["udp-sink", &to, "--idle-ms", "2000"]), "ready")?;
    let mut flood = lab.in_target(&program);
    flood.args(["udp-flood", &to, "--wait", "--seconds", "10", "--pause-us", "2000"]);
    let mut flood = Process::start_until(&mut flood, "ready")?;
    let keeper = Arc::clone(&setting.keeper);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut target = Victims::nobody([keeper.pid()]);
        target.add_pid(flood.pid().parse()?)?;
        let request = Request::new(plan(LINK)?, target, keeper);
        let mut active = Armed::arm(request)?.activate()?;
        let mut signals = Signals::catch()?;
        flood.release()?;
        for (spec, time) in [(None, FIRST), (Some(NOTHING), Duration::ZERO), (Some(LINK), AGAIN)] {
            if let Some(spec) = spec {
                active.change(plan(spec)?)?;
            }
            let stop = |signal| Some(End::Signal(signal));
            let end = active.live(&mut signals, tokio::time::sleep(time), stop).await?.end;
            ensure!(end == End::CommandEnded, "the session ended: {end:?}");
        }
        let healed = active.heal(End::Deadline).await;
        ensure!(healed.troubles.is_empty(), "{:?}", healed.troubles);
        Ok(())
    })?;
    let (flooded, sunk): (Flooded, Sunk) = (flood.report()?, sink.report()?);
    ensure!(flooded.errors.is_empty(), "{flooded:?}");
    Ok(flooded.sent as f64 - sunk.distinct as f64)
}

fn plan(spec: &str) -> anyhow::Result<Plan> {
    Ok(Plan::new(vec![parse(Layer::Net, spec)?], &[], 1, None)?)
}
