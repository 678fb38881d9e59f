//! Files as people write them, right and wrong.

mod documented;
mod presets;

use std::time::Duration;

use proptest::prelude::*;

use super::{GIVEN, Origin, SCENARIO_MAX_BYTES, Scenario, ScenarioError, outline, read};
use crate::{report::timeline::timeline, session::plan::Plan};

const OUTAGE: &str = include_str!("outage.toml");

fn origin(text: &str) -> Origin {
    Origin { name: "test.toml".to_owned(), text: text.to_owned() }
}

fn scenario(text: &str) -> Scenario {
    read(origin(text), &[], true).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

/// `text` is what the file `name` beside this one holds; with `FAULT_BLESS` set, it is from now on.
fn golden(name: &str, text: &str) {
    let path = format!("{}/src/scenario/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("FAULT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{text}");
}

fn wrong(text: &str, given: bool) -> ScenarioError {
    match read(origin(text), &[], given) {
        Ok(_) => panic!("{text} was read"),
        Err(error) => error,
    }
}

/// What `--dry-run` says about `text`.
fn golden_text(text: &str, words: &[&str]) -> String {
    let scenario = scenario(text);
    let seed = scenario.seed.unwrap_or(1);
    let parts = scenario.parts(&vec![None; scenario.faults.len()], seed, None).unwrap();
    let words: Vec<String> = words.iter().map(|&words| words.to_owned()).collect();
    timeline(&scenario, &parts, &words, seed, scenario.length())
}

#[test]
fn phases_follow_each_other() {
    let scenario = scenario(OUTAGE);
    let at: Vec<_> = scenario
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.schedule.at / 1_000_000, phase.schedule.end()))
        .collect();
    const S: u64 = 1_000_000_000;
    assert_eq!(
        at,
        [
            ("healthy", 0, Some(5 * S)),
            ("slow", 5_000, Some(35 * S)),
            ("phase 3", 35_000, Some(48 * S)),
            ("log", 10_000, Some(40 * S)),
        ]
    );
    assert_eq!(scenario.length(), Some(Duration::from_secs(48)));
    assert_eq!((scenario.seed, scenario.faults.len(), scenario.probes.len()), (Some(7), 4, 2));
    let names: Vec<_> = scenario.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, [GIVEN, "db"]);
}

#[test]
fn each_target_has_its_own_plan_and_numbers_stay() {
    let scenario = scenario(OUTAGE);
    let parts = scenario.parts(&[None; 4], 7, None).unwrap();
    let numbers = |part: &super::Part| part.timed.iter().map(|timed| timed.number).collect::<Vec<_>>();
    assert_eq!(parts.iter().map(numbers).collect::<Vec<_>>(), [vec![0, 1, 2], vec![3]]);
    // Draws go by the number in the scenario.
    assert_eq!(parts[1].plan.rules[0].rule.id, 3);
    // The exception is for packets; the other target has only a disk fault.
    assert_eq!((parts[0].plan.exceptions.len(), parts[1].plan.exceptions.len()), (1, 0));
    for planned in parts.iter().flat_map(|part| &part.plan.rules) {
        assert_eq!((planned.rule.trigger.start_ns, planned.rule.trigger.end_ns), (0, 0), "{}", planned.fault);
    }
}

#[test]
fn everything_any_phase_needs_is_needed_from_the_start() {
    let needs = |text: &str| {
        let text = format!("[[phase]]\nfor=\"1s\"\n[[phase]]\nfor=\"1s\"\nfaults=[{text}]");
        let parts = scenario(&text).parts(&[None], 1, None).unwrap();
        parts[0].plan.needs()
    };
    assert!(needs("{net='delay 1ms'}").packet_delay);
    assert!(needs("{net='corrupt'}").checksum);
    assert!(needs("{net='refuse'}").calls);
    assert!(needs("{disk='hang 1s'}").bio_delay);
    // Neither end of this ramp asks for single packets, what is between them does.
    assert!(!needs("{net='drop 0%'}").cut && !needs("{net='drop 100%'}").cut);
    assert!(needs("{net='drop 0%', ramp-to='drop 100%'}").cut);
    let parts = scenario("[[phase]]\nfor='9s'\nfaults=[{net='delay 0ms',ramp-to='delay 300ms'}]");
    let parts = parts.parts(&[None], 1, None).unwrap();
    assert_eq!(parts[0].plan.longest_delay(), Duration::from_millis(300));
}

#[test]
fn windows_of_specs_are_about_their_phase() {
    let scenario = scenario(
        "[[phase]]\nat = '10s'\nfor = '5s'\nevery = '20s'\nfaults = [{ net = 'drop after 2s for 1s' }, { net = 'drop after 4s for 9s' }]",
    );
    const S: u64 = 1_000_000_000;
    let of = |number: usize| {
        let schedule = scenario.faults[number].schedule;
        (schedule.at / S, schedule.length.map(|length| length / S), schedule.every.map(|every| every / S))
    };
    assert_eq!(of(0), (12, Some(1), Some(20)));
    assert_eq!(of(1), (14, Some(1), Some(20)));
}

#[test]
fn turns_of_a_cycle_begin_with_its_phase() {
    let scenario =
        scenario("[[phase]]\nat = '7s'\nfor = '9s'\nfaults = [{ net = 'drop cycle 1s/2s after 1s' }]");
    let parts = scenario.parts(&[None], 1, None).unwrap();
    let trigger = parts[0].plan.rules[0].rule.trigger;
    const S: u64 = 1_000_000_000;
    assert_eq!(
        (trigger.start_ns, trigger.end_ns, trigger.cycle_ns, trigger.cycle_on_ns),
        (8 * S, 0, 3 * S, S)
    );
    let on: Vec<u64> = (0..16).filter(|second| trigger.in_window(second * S)).collect();
    assert_eq!(on, [8, 11, 14]);
}

#[test]
fn parameters_are_put_in_anywhere() {
    let text = "[parameters]\nlate = { default = '300ms', about = 'how late' }\nport = '5432'\n\
                [[phase]]\nfor = '${late}'\nfaults = [{ net = 'delay ${late} tcp port ${port}' }]";
    let given = [("late".to_owned(), "2s".to_owned())];
    let with = read(origin(text), &given, true).unwrap();
    assert_eq!(with.faults[0].words(), "delay 2s tcp port 5432");
    assert_eq!(with.length(), Some(Duration::from_secs(2)));
    assert_eq!(scenario(text).faults[0].words(), "delay 300ms tcp port 5432");
    let unknown = [("layte".to_owned(), "2s".to_owned())];
    let error = read(origin(text), &unknown, true).unwrap_err().render(false);
    assert!(error.contains("unknown parameter `layte`") && error.contains("did you mean `late`?"), "{error}");
}

#[test]
fn the_timeline_is_golden() {
    golden("timeline.txt", &golden_text(OUTAGE, &["`psql`", "cgroup /db"]));
}

#[test]
fn two_targets_do_not_share_their_luck() {
    let scenario = scenario(
        "[targets.a]\npid = 1\n[targets.b]\npid = 2\n[[phase]]\nfor = '1s'\n\
         faults = [{ net = 'drop 50%', target = 'a' }, { net = 'drop 50%', target = 'b' }]",
    );
    let parts = scenario.parts(&[None; 2], 1, None).unwrap();
    let id = |plan: &Plan| plan.rules[0].rule.id;
    assert_ne!(id(&parts[0].plan), id(&parts[1].plan));
}

/// One mistake each, and what is said about it.
#[test]
fn mistakes_are_pointed_at() {
    let phase = |rest: &str| format!("[[phase]]\nfor = \"1s\"\n{rest}\n");
    let fault = |fault: &str| phase(&format!("faults = [{fault}]"));
    let files = [
        String::new(),
        "[[phase]".to_owned(),
        "[[phase]]\nfor = 10".to_owned(),
        "[[phase]]\nfor = \"10\"".to_owned(),
        "[[phase]]\nfor = \"0s\"".to_owned(),
        "[[phase]]\nfor = \"1s\"\nfro = \"2s\"".to_owned(),
        "sed = 7\n[[phase]]".to_owned(),
        "seed = -1\n[[phase]]".to_owned(),
        "[[phase]]\n[[phase]]".to_owned(),
        phase("repeat = 3"),
        phase("every = \"500ms\""),
        "[[phase]]\nfor = \"1ns\"\nevery = \"9ms\"".to_owned(),
        "[[phase]]\nevery = \"1s\"".to_owned(),
        phase("faults = \"drop\""),
        fault("\"drop\""),
        fault("{}"),
        fault("{ net = \"drop 5% otu\" }"),
        fault("{ net = 'drop iface \"eth0\" otu' }"),
        fault("{ nett = \"drop\" }"),
        fault("{ net = \"drop\", disk = \"error\" }"),
        fault("{ net = \"drop\", over = \"1s\" }"),
        fault("{ net = \"delay 0ms\", ramp-to = \"delay 1s out\" }"),
        fault("{ net = \"drop\", ramp-to = \"drop 5%\" }"),
        fault("{ net = \"delay 0ms\", ramp-to = \"delay 1s\", over = \"2s\" }"),
        fault("{ net = \"drop after 1s\" }"),
        phase("every = \"2s\"\nfaults = [{ net = \"drop cycle 100ms/1s\" }]"),
        fault("{ net = \"drop\", target = \"db\" }"),
        fault("{ net = \"drop\", expect = \"injectd > 0\" }"),
        fault("{ net = \"drop\", expect = \"injected > much\" }"),
        fault("{ net = \"drop port ${port}\" }"),
        fault(
            "{ net = \"drop to 10.0.0.1:1 to 10.0.0.2:2\", ramp-to = \"drop 1% to 10.0.0.1:1 to 10.0.0.2:2\" }",
        ),
        "[targets.given]\npid = 1\n[[phase]]".to_owned(),
        "[targets.db]\n[[phase]]".to_owned(),
        "[targets.db]\npid = 0\n[[phase]]".to_owned(),
        "[parameters]\nport = { about = \"which\" }\n[[phase]]".to_owned(),
        "except = \"drop\"\n[[phase]]".to_owned(),
        "[[expect]]\nstatus = 1\n[[phase]]".to_owned(),
        "[[expect]]\nrun = []\n[[phase]]".to_owned(),
        "[[expect]]\nrun = \"true\"\nstatus = 256\n[[phase]]".to_owned(),
    ];
    let mut told = String::new();
    for file in &files {
        told += &format!("{}\n", wrong(file, true).render(false));
    }
    told += &wrong("[[phase]]\nfaults = [{ net = \"drop\" }]", false).render(false);
    golden("rejected.txt", &told);
}

proptest! {
    /// Whatever is in the file, there is a scenario or an error that can be shown.
    #[test]
    fn nothing_panics(at in 0..OUTAGE.len(), taken in 0usize..40, put in "[\\[\\]{}=\"'${}a-z0-9 %.,\n\\\\\u{e9}-]{0,12}") {
        let end = (at + taken).min(OUTAGE.len());
        prop_assume!(OUTAGE.is_char_boundary(at) && OUTAGE.is_char_boundary(end));
        let text = format!("{}{put}{}", &OUTAGE[..at], &OUTAGE[end..]);
        match read(origin(&text), &[], true) {
            Ok(scenario) => {
                let words = vec![String::new(); scenario.targets.len()];
                if let Ok(parts) = scenario.parts(&vec![None; scenario.faults.len()], 1, None) {
                    let text = timeline(&scenario, &parts, &words, 1, scenario.length());
                    prop_assert!(text.ends_with("Nothing was armed.\n"));
                }
            }
            Err(error) => {
                prop_assert!(error.render(false).contains("error: "));
            }
        }
    }
}

/// 64 KiB of it would have stood for 250 MB.
#[test]
fn what_parameters_stand_for_has_a_limit() {
    let text = |times: usize| {
        let value = "x".repeat(SCENARIO_MAX_BYTES / 8);
        format!("[parameters]\na = \"{value}\"\n[[phase]]\nname = \"{}\"", "${a}".repeat(times))
    };
    scenario(&text(8));
    let error = wrong(&text(9), true);
    assert_eq!(error.to_string(), "what parameters stand for is longer than 1 MiB in all");
}

#[test]
fn a_file_has_a_longest_length() {
    let error = wrong(&"#".repeat(SCENARIO_MAX_BYTES + 1), true);
    assert_eq!(error.to_string(), "a scenario of 1048577 bytes");
    assert!(error.render(false).contains("at most 1 MiB"));
    scenario(&format!("[[phase]]\n{}", "#".repeat(SCENARIO_MAX_BYTES - 10)));
}

#[test]
fn an_outline_needs_no_values() {
    let text = "about = \"loses ${p}\"\n[parameters]\np.about = \"how much\"\n[[phase]]";
    let (about, parameters) = outline(&origin(text)).unwrap();
    assert_eq!((about.as_deref(), parameters.len()), (Some("loses ${p}"), 1));
}
