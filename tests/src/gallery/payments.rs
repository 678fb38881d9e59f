//! A payment service over PostgreSQL, and shoppers that try again.

use std::{collections::BTreeMap, thread};

use anyhow::{Context as _, ensure};

use super::{
    Scenario, Story,
    service::Services,
    stage::{Stage, Table},
};
use crate::{
    postgres_lab::{self, Postgres},
    process::Process,
    victim::report::Sample,
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "payment",
    number: "3",
    story: Story {
        title: "Request lost, reply lost, reply late",
        lead: "A payment service over PostgreSQL and shoppers that try again after a time-out. The shopper feels the same \
               three times; the rows of the database tell the difference.",
        production: "Customers who were charged twice, in numbers that match the time-outs of the callers. The payment \
                     service has no error in its log and serves every request in its usual time. Callers have time-outs, \
                     and all their retries succeed.",
        look_for: "The crosses look alike in all three phases: a try that ends at the shopper's time-out of 2 s. The table of \
                   rows does not: a lost request costs nothing, a lost reply is a second charge, and so is a reply that comes \
                   after the shopper has given up. Who waits long enough is charged once. With an idempotency key every \
                   order is charged once, whatever was lost. (The shopper ends its connection with SO_LINGER 0. After a mere \
                   close(2) the kernel goes on sending a lost request, and it arrives when all is well again: then a lost \
                   request is a late one.)",
        who: "SHOPPER is the PID of the shopper.",
    },
    run,
};

const PORT: u16 = 8220;
/// Seconds; the reply is late by four.
const PATIENCE: &str = "2";
const LONG_PATIENCE: &str = "20";
/// Orders of somebody who is no target.
const OTHERS: u32 = 6;

/// Phase, what goes wrong, how long the shopper waits, whether each try that timed out was a charge.
type Wrong = (&'static str, &'static str, &'static str, bool);
const WRONG: [Wrong; 4] = [
    ("request lost", "hang out", PATIENCE, false),
    ("reply lost", "hang in", PATIENCE, true),
    ("reply late", "delay 4s in data", PATIENCE, true),
    ("reply late, and waited for", "delay 4s in data", LONG_PATIENCE, false),
];

/// The shopper's tries by order.
fn by_order(tries: &[Sample]) -> BTreeMap<u32, Vec<&Sample>> {
    let mut orders: BTreeMap<u32, Vec<&Sample>> = BTreeMap::new();
    for one in tries {
        if let Ok(order) = one.what.parse() {
            orders.entry(order).or_default().push(one);
        }
    }
    orders
}

/// Rows by order.
fn charges(server: &Postgres) -> anyhow::Result<BTreeMap<u32, usize>> {
    let ended = server.sql("select order_number, count(*) from charges group by 1;\n")?;
    ensure!(ended.status.success(), "{ended:?}");
    ended
        .stdout
        .lines()
        .map(|line| {
            let (order, rows) = line.split_once('|').with_context(|| line.to_owned())?;
            Ok((order.parse()?, rows.parse()?))
        })
        .collect()
}

struct Shop {
    server: Postgres,
    orders: u32,
}

/// All shoppers of the run, each waiting for its go: those of the phases, in their order, and for each phase in which
/// something is wrong one who is no target.
fn shoppers(
    services: &Services,
    wrong: &[Wrong],
    orders: u32,
) -> anyhow::Result<(Vec<Process>, Vec<Process>)> {
    let patience =
        [PATIENCE].into_iter().chain(wrong.iter().map(|(.., patience, _)| *patience)).chain([PATIENCE]);
    let mut next = 0;
    let mut command = |patience: &str, orders: u32| {
        let words = vec![PORT.to_string(), patience.to_owned(), next.to_string(), orders.to_string()];
        next += orders;
        ("shopper.py", words)
    };
    let targets: Vec<_> = patience.map(|patience| command(patience, orders)).collect();
    let others: Vec<_> = wrong.iter().map(|_| command(LONG_PATIENCE, OTHERS)).collect();
    let mut targets = services.start_all(&[targets, others].concat())?;
    let others = targets.split_off(wrong.len() + 2);
    Ok((targets, others))
}

fn buy(mut shopper: Process) -> anyhow::Result<(Vec<Sample>, Vec<Sample>)> {
    shopper.release()?;
    let tries: Vec<Sample> = shopper.report()?;
    Ok((tries.clone(), tries))
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["postgresql-15", "python3-psycopg2"] {
        stage.runs(package)?;
    }
    let place = tempfile::TempDir::new()?;
    let mut servers = postgres_lab::make(place.path(), 1)?;
    let mut server = servers.pop().context("one was asked for")?;
    server.start()?;
    let services = Services::new()?;
    let directory = server.directory().to_string_lossy().into_owned();
    let _payment = services.start("payment.py", &[&PORT.to_string(), &directory])?;
    let shop = Shop { server, orders: stage.pace.of(12, 40) };
    // Who waits is nobody's surprise.
    let wrong = &WRONG[..stage.pace.of(3, 4)];
    let (targets, others) = shoppers(&services, wrong, shop.orders)?;
    let (mut targets, mut others) = (targets.into_iter(), others.into_iter());
    let mut rows = Vec::new();

    let tries = stage.phase("before", || buy(targets.next().context("a shopper")?))?;
    rows.push(judge(stage, &shop, "before", &tries, false)?);
    for (phase, what, _, again) in wrong {
        let (shopper, bystander) = targets.next().zip(others.next()).context("two shoppers")?;
        let words = ["play", "scenarios/payment.toml", "--pid", "SHOPPER"];
        let parameters = [format!("peer=127.0.0.1:{PORT}"), format!("what={what}")];
        let words: Vec<&str> = words.into_iter().chain(parameters.iter().map(String::as_str)).collect();
        let injection = stage.fault(&words, &[("SHOPPER", &shopper.pid())])?;
        let (tries, others) = stage.hurt(phase, || {
            let other = thread::spawn(move || buy(bystander));
            let (tries, samples) = buy(shopper)?;
            let (others, _) = other.join().map_err(|_| anyhow::anyhow!("the bystander panicked"))??;
            Ok(((tries, others), samples))
        })?;
        let report = injection.heal()?;
        stage.checks.that(format!("{phase}: `fault` hit something"), report.rule(0, "injected")? > 0)?;
        stage.checks.equal(
            &format!("{phase}: tries of a shopper that is no target, for {OTHERS} orders"),
            others.len(),
            OTHERS as usize,
        )?;
        rows.push(judge(stage, &shop, phase, &tries, *again)?);
    }
    let tries = stage.phase("after", || buy(targets.next().context("a shopper")?))?;
    rows.push(judge(stage, &shop, "after", &tries, false)?);
    stage.tables.push(Table {
        title: "Rows in the database".to_owned(),
        head: [
            "phase",
            "orders, each kind",
            "tries that timed out, without a key",
            "rows, without a key",
            "tries that timed out, with a key",
            "rows, with a key",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    });
    Ok(())
}

/// Compares what the shopper knows with the rows; a row of the page.
fn judge(
    stage: &mut Stage,
    shop: &Shop,
    phase: &str,
    tries: &[Sample],
    again: bool,
) -> anyhow::Result<Vec<String>> {
    let charged = charges(&shop.server)?;
    let orders = by_order(tries);
    let expected = shop.orders as usize;
    stage.checks.equal(&format!("{phase}: orders that were paid in the end"), paid(&orders), expected)?;
    let (mut timed_out, mut rows) = ([0, 0], [0, 0]);
    for (order, tries) in &orders {
        let keyed = order % 2 == 0;
        let failed = tries.iter().filter(|one| !one.good).count();
        timed_out[usize::from(keyed)] += failed;
        let there = charged.get(order).copied().unwrap_or(0);
        rows[usize::from(keyed)] += there;
        let due = if keyed || !again { 1 } else { 1 + failed };
        ensure!(
            there == due,
            "{phase}: order {order} has {there} rows and not {due}, after {failed} time-outs"
        );
    }
    let [without, with] = rows;
    stage.checks.that(
        format!(
            "{phase}: rows without a key: {without} for {} orders and {} time-outs",
            expected / 2,
            timed_out[0]
        ),
        without == expected / 2 + if again { timed_out[0] } else { 0 },
    )?;
    stage.checks.equal(
        &format!("{phase}: rows with a key, for {} orders", expected / 2),
        with,
        expected / 2,
    )?;
    let waits = phase.contains("waited") || phase == "before" || phase == "after";
    stage.checks.that(
        format!("{phase}: {} tries timed out", timed_out[0] + timed_out[1]),
        (timed_out[0] + timed_out[1] == 0) == waits,
    )?;
    if !waits {
        // Each connection is hit or not, by chance; a first try is one connection.
        let unlucky = orders.values().filter(|tries| tries.first().is_some_and(|first| !first.good)).count();
        stage.checks.binomial(&format!("{phase}: first tries that timed out"), unlucky, orders.len(), 0.5)?;
    }
    Ok(vec![
        phase.to_owned(),
        (expected / 2).to_string(),
        timed_out[0].to_string(),
        without.to_string(),
        timed_out[1].to_string(),
        with.to_string(),
    ])
}

fn paid(orders: &BTreeMap<u32, Vec<&Sample>>) -> usize {
    orders.values().filter(|tries| tries.last().is_some_and(|last| last.good)).count()
}
