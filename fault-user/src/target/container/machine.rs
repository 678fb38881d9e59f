//! Containers of systemd-nspawn: units of the system's manager, from the cgroup tree and from what systemd-machined has
//! registered.
//!
//! `systemd-nspawn` asks for `machine-NAME.scope`, `machinectl start` starts `systemd-nspawn@NAME.service`, and with
//! `--keep-unit` a container stays in the unit it was started in; machined knows the unit of each (`/run/systemd/machines`,
//! as systemd-machined and `machinectl` read it). In all of them the container itself is below `payload`, the program that
//! watches over it in `supervisor`.

use std::{fs, path::Path};

use super::{Container, Engine, id::of_cgroup};
use crate::target::cgroup::{CgroupError, Mounts, subtree};

/// A file for each machine that machined knows.
const REGISTERED: &str = "/run/systemd/machines";
/// The part of a unit's cgroup that is the container.
const PAYLOAD: &str = "payload";
/// Names of units that say a container's, and what is behind it.
const UNITS: [(&str, &str); 2] = [("machine-", ".scope"), ("systemd-nspawn@", ".service")];

/// A machine, and the unit it runs in.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    name: String,
    unit: String,
}

/// Every machine that is registered, or whose unit shows it.
///
/// # Errors
/// When the cgroup tree cannot be read.
pub(super) fn containers() -> Result<Vec<Container>, CgroupError> {
    let registered = registered(Path::new(REGISTERED));
    let mut found = Vec::new();
    for path in subtree(&Mounts::read()?.best().point)? {
        let Some(unit) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_of_the_system(&path))
        else {
            continue;
        };
        let mut names: Vec<String> =
            registered.iter().filter(|one| one.unit == unit).map(|one| one.name.clone()).collect();
        if names.is_empty() {
            // Virtual machines have such units, too, but nothing of theirs is a container.
            names.extend(name_in(unit).filter(|_| path.join(PAYLOAD).is_dir()));
        }
        if names.is_empty() {
            continue;
        }
        let payload = Some(path.join(PAYLOAD)).filter(|payload| payload.is_dir());
        found.push(Container {
            engine: Engine::Nspawn,
            id: unit.to_owned(),
            names,
            cgroup: Some(payload.unwrap_or(path)),
            user: None,
        });
    }
    Ok(found)
}

/// Whether the system's manager made this cgroup: not that of a user, and not one in a container, who call theirs as they
/// please.
fn is_of_the_system(path: &Path) -> bool {
    let is_delegated =
        |part: &str| part.ends_with(".service") || part.ends_with(".scope") || of_cgroup(part).is_some();
    path.parent()
        .into_iter()
        .flat_map(Path::iter)
        .filter_map(|part| part.to_str())
        .all(|part| !is_delegated(part))
}

/// The machine's name in that of its unit.
fn name_in(unit: &str) -> Option<String> {
    let (head, tail) = UNITS.iter().find(|(head, tail)| unit.starts_with(head) && unit.ends_with(tail))?;
    unescape(unit.strip_prefix(head)?.strip_suffix(tail)?)
}

/// What systemd.unit(5) calls string escaping, undone. A machine's name has no slash in it.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(code) = rest.strip_prefix(r"\x") {
            bytes.push(u8::from_str_radix(code.get(..2)?, 16).ok()?);
            rest = &code[2..];
        } else {
            bytes.extend(first.to_string().bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The containers that machined has written down.
fn registered(directory: &Path) -> Vec<Machine> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    // Links lead from units to machines.
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.filter_map(|entry| machine(&fs::read_to_string(entry.path()).ok()?)).collect()
}

/// machined's file of one machine: assignments, as in a shell. It escapes what is not a plain word; names of units are not.
fn machine(text: &str) -> Option<Machine> {
    let value = |key: &str| {
        let assigned = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(assigned.trim_matches('"').replace(r"\\", r"\"))
    };
    // Virtual machines are `vm`.
    value("CLASS").filter(|class| class == "container")?;
    Some(Machine { name: value("NAME")?, unit: value("SCOPE").or_else(|| value("UNIT"))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_those_of_units() {
        let of = |unit| name_in(unit);
        assert_eq!(of("machine-web.scope").as_deref(), Some("web"));
        assert_eq!(of(r"machine-web\x2d1.scope").as_deref(), Some("web-1"));
        assert_eq!(of("systemd-nspawn@db.service").as_deref(), Some("db"));
        for unit in ["machine-.scope", r"machine-\x2.scope", r"machine-\xff.scope", r"machine-\x2f.scope"] {
            assert_eq!(of(unit), None, "{unit}");
        }
        assert_eq!(of("machine.slice"), None);
        assert_eq!(of("session-1.scope"), None);
    }

    #[test]
    fn units_of_users_and_in_containers_are_not_the_systems() {
        assert!(is_of_the_system(Path::new("/c/machine.slice/machine-web.scope")));
        assert!(is_of_the_system(Path::new("/c/systemd-nspawn@web.service")));
        for above in ["user.slice/user-1.slice/user@1.service", "machine.slice/machine-a.scope/payload"] {
            assert!(!is_of_the_system(&Path::new("/c").join(above).join("machine-web.scope")), "{above}");
        }
    }

    #[test]
    fn what_machined_writes_down() {
        // systemd 252.
        let text = "# This is private data. Do not parse.\nNAME=web-1\nSCOPE=\"machine-web\\\\x2d1.scope\"\nSERVICE=systemd-nspawn\n\
                    ROOT=/var/lib/machines/web\nID=00\nLEADER=7\nCLASS=container\nREALTIME=1\nMONOTONIC=1\n";
        let wanted = Machine { name: "web-1".to_owned(), unit: r"machine-web\x2d1.scope".to_owned() };
        assert_eq!(machine(text), Some(wanted));
        assert_eq!(machine(&text.replace("container", "vm")), None);
        assert_eq!(machine("NAME=web\n"), None);
        assert!(registered(Path::new("/nowhere")).is_empty());
    }
}
