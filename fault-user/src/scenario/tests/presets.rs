//! The catalogue is complete, and its pages are about what it holds.

use std::{collections::BTreeSet, fs, path::Path};

use super::super::{Origin, outline, presets::PRESETS, read};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn names(directory: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(repository().join(directory)).unwrap();
    let names = entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
}

/// A value that makes sense for each parameter without a default.
fn value(name: &str) -> &'static str {
    match name {
        "peer" | "primary" => "10.0.0.7:5432",
        "zone" => "10.1.0.0/16",
        "port" => "8080",
        "device" => "/dev/vdb",
        "sectors" => "2048..4096",
        other => panic!("`{other}`"),
    }
}

#[test]
fn every_file_is_in_the_binary_and_has_a_page() {
    let known: BTreeSet<String> = PRESETS.iter().map(|preset| preset.name.to_owned()).collect();
    assert_eq!(known.len(), PRESETS.len());
    assert_eq!(names("presets", ".toml"), known);
    let mut pages = names("docs/presets", ".md");
    assert!(pages.remove("README"));
    assert_eq!(pages, known);
}

#[test]
fn every_preset_is_read_with_its_defaults_and_not_without_a_value() {
    for preset in PRESETS {
        let origin = Origin { name: preset.name.to_owned(), text: preset.text.to_owned() };
        let (about, parameters) = outline(&origin).unwrap();
        assert!(about.is_some_and(|about| about.len() < 90), "{}", preset.name);
        let values: Vec<(String, String)> = parameters
            .iter()
            .filter(|one| one.default.is_none())
            .map(|one| (one.name.clone(), value(&one.name).to_owned()))
            .collect();
        match read(origin.clone(), &values, true) {
            Ok(scenario) => {
                assert!(!scenario.faults.is_empty(), "{}", preset.name);
                assert!(scenario.length().is_some(), "{} never ends", preset.name);
                scenario.parts(&vec![None; scenario.faults.len()], 1, None).unwrap();
            }
            Err(error) => panic!("{}", error.render(false)),
        }
        for missing in 0..values.len() {
            let mut values = values.clone();
            let (name, _) = values.remove(missing);
            let error = read(origin.clone(), &values, true).unwrap_err().render(false);
            assert!(error.contains(&format!("give it one: {name}=VALUE")), "{error}");
        }
    }
}

#[test]
fn pages_name_every_parameter_and_its_default() {
    let list = fs::read_to_string(repository().join("docs/presets/README.md")).unwrap();
    for preset in PRESETS {
        let page = fs::read_to_string(repository().join(format!("docs/presets/{}.md", preset.name))).unwrap();
        let origin = Origin { name: preset.name.to_owned(), text: preset.text.to_owned() };
        let (about, parameters) = outline(&origin).unwrap();
        let about = about.unwrap();
        assert!(list.contains(&format!("| [`{0}`]({0}.md) | {about} |", preset.name)), "{}", preset.name);
        for one in parameters {
            let default =
                one.default.map_or_else(|| "none: must be given".to_owned(), |text| format!("`{text}`"));
            let row = format!("| `{}` | {} | {default} |", one.name, one.about.unwrap());
            assert!(page.contains(&row), "{}: {row}", preset.name);
        }
    }
}
