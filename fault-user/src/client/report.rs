//! What a session did: the object of `--json`, read again.

use serde::Deserialize;

/// What a session did.
#[derive(Clone, Debug)]
pub struct Report {
    /// By number of the fault.
    pub rules: Vec<RuleReport>,
    /// The whole object; its fields are described in docs/reports.md, and are only ever added.
    pub json: serde_json::Value,
}

/// What one fault did.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RuleReport {
    /// Number of the fault, from 0.
    pub id: u32,
    /// Its layer: `net`, `disk`, `file`.
    pub layer: String,
    /// Its spec, in canonical form.
    pub spec: String,
    /// Operations of the target that passed its filter.
    pub matched: u64,
    /// Those of them that were hit.
    pub injected: u64,
    /// Those of them that were not.
    pub spared: u64,
}

impl Report {
    pub(super) fn read(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Rules {
            rules: Vec<RuleReport>,
        }
        let json: serde_json::Value = serde_json::from_str(text)?;
        let Rules { rules } = Rules::deserialize(&json)?;
        Ok(Self { rules, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_kept_and_missing_ones_are_errors() {
        let rule = r#"{"id":0,"layer":"net","spec":"drop","matched":3,"injected":2,"spared":1,"later":1}"#;
        let report = Report::read(&format!(r#"{{"rules":[{rule}],"new":true}}"#)).unwrap();
        assert_eq!((report.rules[0].matched, report.rules[0].injected), (3, 2));
        assert_eq!(report.json["new"], true);
        assert!(Report::read(r#"{"rules":[{"id":0}]}"#).is_err());
        assert!(Report::read("").is_err());
    }
}
