//! nginx in front of three services of a shop; its calls to one of them time out.

use std::{thread, time::Duration};

use anyhow::Context as _;

use super::{
    Scenario, Story,
    service::{Nginx, Services, local},
    stage::Stage,
};
use crate::victim::{http, report::Sample};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "dependency-out",
    number: "2",
    story: Story {
        title: "One dependency out",
        lead: "nginx in front of three small services. Its calls to payment time out; catalogue and inventory do not notice.",
        production: "Checkout fails, and each failure takes exactly as long as `proxy_connect_timeout`. Everything else is \
                     green: the other routes, the health of nginx, the payment service itself. `ss -tn state syn-sent` on \
                     the machine of nginx shows connections that wait for an answer to their first packet.",
        look_for: "The crosses of `checkout` lie on one line, at nginx's time-out of 2 s: nobody refused anything. The dots of \
                   the other two routes go on through the fault where they were before. A second nginx of the same \
                   configuration is not the target, and its checkout works at the same time: payment was never down.",
        who: "NGINX is the PID of nginx's master process.",
    },
    run,
};

const FRONT: u16 = 8200;
const OTHER_FRONT: u16 = 8201;
/// Route, service, its port.
const SHOP: [(&str, &str, u16); 3] =
    [("catalogue", "web", 8210), ("checkout", "payment", 8211), ("inventory", "inventory", 8212)];
/// nginx's patience with a service; that of its users is longer.
const TIMEOUT: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(20);

fn front(port: u16) -> anyhow::Result<Nginx> {
    let timeouts: String =
        ["connect", "read", "send"].map(|what| format!("proxy_{what}_timeout {TIMEOUT:.0}s; ")).concat();
    let routes: String = SHOP
        .map(|(route, _, port)| format!("location /{route} {{ proxy_pass http://127.0.0.1:{port}; }} "))
        .concat();
    Nginx::start(port, &format!("{timeouts}{routes}"))
}

/// One user for each route, at the same time, and one who checks out at the other nginx.
fn everybody(requests: usize, checkouts: usize) -> anyhow::Result<((), Vec<Sample>)> {
    let user = |who: &str, port: u16, route: &str, count: usize| -> Vec<Sample> {
        let ask = |_| {
            thread::sleep(Duration::from_millis(60));
            http::ask(who, local(port), &format!("/{route}"), PATIENCE)
        };
        (0..count).map(ask).collect()
    };
    let all = thread::scope(|scope| {
        let users = SHOP.map(|(route, _, _)| {
            let count = if route == "checkout" { checkouts } else { requests };
            scope.spawn(move || user(route, FRONT, route, count))
        });
        let bystander = scope.spawn(|| user("checkout at another nginx", OTHER_FRONT, "checkout", checkouts));
        users
            .into_iter()
            .chain([bystander])
            .map(thread::ScopedJoinHandle::join)
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(((), all.ok().context("a user panicked")?.concat()))
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    stage.runs("nginx-light")?;
    stage.runs("python3")?;
    let services = Services::new()?;
    let _shop = services
        .start_all(&SHOP.map(|(_, name, port)| ("shop.py", vec![name.to_owned(), port.to_string()])))?;
    let (nginx, _other) = (front(FRONT)?, front(OTHER_FRONT)?);
    let (requests, checkouts) = stage.pace.of((30, 3), (150, 10));

    stage.phase("before", || everybody(requests, requests))?;
    let peer = format!("peer=127.0.0.1:{}", SHOP[1].2);
    let injection = stage.fault(
        &["preset", "dependency-out", "--pid", "NGINX", &peer, "for=5m"],
        &[("NGINX", &nginx.pid())],
    )?;
    stage.hurt("during", || everybody(requests, checkouts))?;
    let report = injection.heal()?;
    stage.phase("after", || everybody(requests, requests))?;

    let (record, checks) = (&stage.record, &mut stage.checks);
    for phase in ["before", "after"] {
        for (route, _, _) in SHOP {
            let seen = record.of(route, phase);
            checks.equal(
                &format!("{route} {phase}: answers 200 of {requests}"),
                seen.ended("200"),
                requests,
            )?;
        }
    }
    for route in ["catalogue", "inventory"] {
        let (before, during) = (record.of(route, "before"), record.of(route, "during"));
        checks.equal(&format!("{route} during: answers 200 of {requests}"), during.ended("200"), requests)?;
        let (usual, now) = (before.median_ms(), during.median_ms());
        checks.that(
            format!("{route} during: median {now:.1} ms, less than twice the {usual:.1} ms before and 10 ms"),
            now < 2.0 * usual + 10.0,
        )?;
        checks.that(
            format!(
                "{route} during: the slowest took {:.0} ms, less than nginx's time-out",
                during.worst_ms()
            ),
            during.worst_ms() < TIMEOUT * 1e3,
        )?;
    }
    let out = record.of("checkout", "during");
    checks.equal(&format!("checkout during: answers 504 of {checkouts}"), out.ended("504"), checkouts)?;
    checks.that(
        format!(
            "checkout during: none took less than nginx's time-out (the fastest {:.0} ms)",
            out.least_ms()
        ),
        out.least_ms() >= TIMEOUT * 1e3 * 0.99,
    )?;
    let other = record.of("checkout at another nginx", "during");
    checks.equal(
        "checkout at the nginx that is no target, during: answers 200",
        other.ended("200"),
        checkouts,
    )?;
    checks.that("`fault` counts lost packets", report.rule(0, "injected")? >= checkouts as u64)
}
