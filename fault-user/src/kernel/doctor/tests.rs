use super::*;

fn kernel_without_fq() -> Capabilities {
    Capabilities::of(Capability::ALL.into_iter().map(|capability| {
        let verdict = match capability {
            Capability::Fq => Verdict::No { cause: "left out".into(), remedy: "put it in".into() },
            Capability::HookCalled => Verdict::Unknown { cause: "no disk".into() },
            _ => Verdict::Yes,
        };
        (capability, verdict)
    }))
}

#[test]
fn json_has_the_promised_shape() {
    let mut out = Vec::new();
    write_json(&kernel_without_fq(), &mut out).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(report["kernel"]["release"], "6.12.0-test");
    let named = |name: &str| {
        report["capabilities"].as_array().unwrap().iter().find(|line| line["name"] == name).unwrap().clone()
    };
    assert_eq!(named("tcx")["ok"], true);
    assert_eq!(named("fq")["ok"], false);
    assert_eq!(named("fq")["why"], "left out");
    assert_eq!(named("fq")["remedy"], "put it in");
    assert_eq!(named("fq")["needed_for"], serde_json::json!(["packet_delay"]));
    assert!(named("hook_called")["ok"].is_null());
    let features = &report["features"];
    assert_eq!(features["packet_drop"]["ok"], true);
    assert_eq!(features["packet_delay"]["ok"], false);
    assert_eq!(features["packet_delay"]["missing"], "fq");
    assert_eq!(features["disk_error"]["through"], serde_json::json!(["fmod_ret", "kprobe_override"]));
    assert_eq!(features["disk_delay"]["untried"][0]["name"], "hook_called");
}

#[test]
fn text_begins_with_what_users_ask_for() {
    let mut out = Vec::new();
    write_text(&kernel_without_fq(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let mut lines = text.lines().skip(2);
    assert_eq!(lines.next(), Some("packet drop       yes  through tcx, else clsact"));
    assert_eq!(lines.next(), Some("packet delay      no"));
    assert_eq!(lines.next(), Some("                  fq: left out"));
    assert_eq!(lines.next(), Some("                  → put it in"));
    assert_eq!(lines.next(), Some("packet segments   yes  through tcx, else clsact"));
    assert_eq!(lines.next(), Some("packet corruption yes  through tcx, else clsact"));
    assert_eq!(lines.next(), Some("calls             yes"));
    assert_eq!(lines.next(), Some("disk error        yes  through fmod_ret, else kprobe_override"));
    assert_eq!(lines.next(), Some("                  not tried: hook_called: no disk"));
    for capability in Capability::ALL {
        assert!(text.contains(&format!("\n{:<20} ", capability.name())), "{}", capability.name());
    }
}
