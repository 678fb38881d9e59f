//! Kernel configuration as text: our fragment, a lane's options on top, and what became of them.

use std::collections::BTreeMap;

/// The options every built lane has, with the reasons beside them.
pub const FRAGMENT: &str = include_str!("../../kernel/fragment.config");

/// The fragment with `overrides` in place of the lines they replace.
pub fn with_overrides(fragment: &str, overrides: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(fragment.len());
    for line in fragment.lines() {
        let replaced =
            option(line).is_some_and(|(name, _)| overrides.iter().any(|(other, _)| *other == name));
        if !replaced {
            out.push_str(line);
            out.push('\n');
        }
    }
    for (name, value) in overrides {
        out.push_str(&format!("{name}={value}\n"));
    }
    out
}

/// Options of `wanted` that `actual` (a complete `.config`) does not have as asked, in order.
pub fn lost<'a>(wanted: &'a str, actual: &str) -> Vec<&'a str> {
    let actual: BTreeMap<&str, &str> = actual.lines().filter_map(option).collect();
    wanted
        .lines()
        .filter(|line| {
            option(line).is_some_and(|(name, value)| {
                // An option that is off is not listed at all, or as a comment.
                actual.get(name).copied().unwrap_or("n") != value
            })
        })
        .collect()
}

/// `CONFIG_X=value` as name and value; `None` for comments and blank lines.
fn option(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("CONFIG_")?;
    line.split_once('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_replaces_the_line_and_nothing_else() {
        let text = with_overrides("# why\nCONFIG_A=y\nCONFIG_AB=y\n", &[("CONFIG_A", "n")]);
        assert_eq!(text, "# why\nCONFIG_AB=y\nCONFIG_A=n\n");
    }

    #[test]
    fn options_that_did_not_stick_are_named() {
        let wanted = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_D=\"x\"\nCONFIG_E=y\n";
        let actual = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=\"x\"\nCONFIG_E=m\n";
        assert_eq!(lost(wanted, actual), ["CONFIG_E=y"]);
    }

    #[test]
    fn no_option_is_given_twice() {
        let mut names: Vec<_> = FRAGMENT.lines().filter_map(option).map(|o| o.0).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
