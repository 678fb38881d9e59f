//! `--unit NAME`: a unit of systemd, found by its cgroup.
//!
//! The system's manager is asked by `systemctl show`, not over D-Bus by a library: what is needed is one property, the
//! program is wherever the manager is and speaks to it also when no bus runs (over `/run/systemd/private`), and it
//! resolves aliases, templates and escapes. A D-Bus library would be a second asynchronous runtime in a process whose
//! heartbeat hangs on its only thread. Units of a user's manager are looked for in the cgroup tree, below
//! `user@UID.service`, where that manager has to put them: to ask it one must be that user.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::cgroup::{Cgroup, CgroupError, Mounts, subtree};
use crate::exit::Class;

/// Made by the manager when it starts: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// What a name without a type is taken for, as systemctl(1) does.
const DEFAULT_TYPE: &str = ".service";
/// The types of units that have a cgroup, systemd.unit(5).
const TYPES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// A unit cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// No manager.
    #[error("no unit {0}: systemd does not manage this machine ({BOOTED} does not exist); aim with --cgroup")]
    NoManager(String),
    /// Not a name a unit can have.
    #[error("{given:?} is no name of a unit: {why}")]
    Name {
        /// What the user wrote.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such unit.
    #[error(
        "no unit {0}, neither of the system nor of a user: `systemctl list-units` lists those of the system"
    )]
    Unknown(String),
    /// It is loaded, and nothing of it runs.
    #[error("unit {name} is {state}, so it has no processes: start it first (`systemctl start {name}`)")]
    NotRunning {
        /// Its name.
        name: String,
        /// What systemd says: `inactive`, `failed` …
        state: String,
    },
    /// Several users have one of this name.
    #[error("several users have a unit {name}: aim at one of them with --cgroup {}", paths(.found))]
    Ambiguous {
        /// Its name.
        name: String,
        /// Where.
        found: Vec<PathBuf>,
    },
    /// The program could not be started.
    #[error("cannot ask systemd about unit {name}: starting `systemctl` failed")]
    Start {
        /// The unit.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manager does not answer.
    #[error("cannot ask systemd about unit {name}: {said}")]
    Manager {
        /// The unit.
        name: String,
        /// What `systemctl` said.
        said: String,
    },
    /// Its cgroup is not there.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

fn paths(found: &[PathBuf]) -> String {
    let words: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    words.join(" or --cgroup ")
}

impl UnitError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoManager(_)
            | Self::Name { .. }
            | Self::Unknown(_)
            | Self::NotRunning { .. }
            | Self::Ambiguous { .. } => Class::Usage,
            Self::Start { .. } | Self::Manager { .. } => Class::Other,
            Self::Cgroup(error) => error.class(),
        }
    }
}

/// The cgroup of the unit `given` (`nginx`, `nginx.service`, `user.slice`, `app@1.service`).
///
/// # Errors
/// When there is no such unit, or nothing of it runs.
pub fn find(given: &str) -> Result<Cgroup, UnitError> {
    let name = full_name(given)?;
    let of_users = of_users(&name)?;
    if !Path::new(BOOTED).is_dir() {
        return single(&name, of_users)?.ok_or(UnitError::NoManager(name));
    }
    let state = ask(&name)?;
    if let Some(path) = state.cgroup() {
        // The manager's paths begin at the root of the hierarchy. An active unit may have no process, and then no cgroup.
        return Cgroup::resolve(path).map_err(|error| match error {
            CgroupError::Unknown { .. } => {
                UnitError::NotRunning { name, state: format!("{} without a process", state.active()) }
            }
            error => error.into(),
        });
    }
    if let Some(cgroup) = single(&name, of_users)? {
        return Ok(cgroup);
    }
    if state.is_loaded() {
        return Err(UnitError::NotRunning { name, state: state.active().to_owned() });
    }
    Err(UnitError::Unknown(name))
}

fn full_name(given: &str) -> Result<String, UnitError> {
    let wrong = |why| UnitError::Name { given: given.to_owned(), why };
    if given.is_empty() || given.starts_with('-') {
        return Err(wrong("give one like `nginx` or `nginx.service`"));
    }
    // systemd.unit(5): letters, digits and `:-_.\@`.
    if given.contains('/') {
        return Err(wrong("it has a slash in it; a path of a cgroup is for --cgroup"));
    }
    if !given.chars().all(|letter| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter)) {
        return Err(wrong("names have letters, digits and `:-_.\\@` in them, and no patterns"));
    }
    let typed = TYPES.iter().any(|suffix| given.len() > suffix.len() && given.ends_with(suffix));
    Ok(if typed { given.to_owned() } else { format!("{given}{DEFAULT_TYPE}") })
}

/// What the system's manager says of a unit.
#[derive(Debug)]
struct State(BTreeMap<String, String>);

impl State {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn is_loaded(&self) -> bool {
        // `not-found`, `bad-setting`, `error`, `masked`.
        self.get("LoadState") == "loaded"
    }

    fn active(&self) -> &str {
        self.get("ActiveState")
    }

    /// Where its processes live. An inactive unit keeps none; the root slice has the empty path.
    fn cgroup(&self) -> Option<&Path> {
        let (path, id) = (self.get("ControlGroup"), self.get("Id"));
        match path {
            "" if id == "-.slice" => Some(Path::new("/")),
            "" => None,
            path => Some(Path::new(path)),
        }
    }
}

fn ask(name: &str) -> Result<State, UnitError> {
    let output = Command::new("systemctl")
        .args(["show", "--no-pager", "--property=Id,LoadState,ActiveState,ControlGroup", "--", name])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| UnitError::Start { name: name.to_owned(), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(UnitError::Manager { name: name.to_owned(), said });
    }
    Ok(State::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The cgroups of units of this name that users' managers run.
fn of_users(name: &str) -> Result<Vec<PathBuf>, UnitError> {
    let found = subtree(&Mounts::read()?.best().point)?;
    Ok(found.into_iter().filter(|path| is_unit_of_user(path, name)).collect())
}

/// Whether this is the cgroup of unit `name` below the manager of a user, and not that of the manager itself.
fn is_unit_of_user(path: &Path, name: &str) -> bool {
    let own = path.file_name().and_then(|own| own.to_str()).unwrap_or_default();
    // What would collide with a file of the kernel's has an underscore in front (`cg_escape`).
    if own != name && own.strip_prefix('_') != Some(name) {
        return false;
    }
    let is_manager = |part: &std::ffi::OsStr| {
        part.to_str().is_some_and(|part| part.starts_with("user@") && part.ends_with(".service"))
    };
    path.parent().is_some_and(|above| above.iter().any(is_manager))
}

/// The one of them; nothing if there is none.
fn single(name: &str, found: Vec<PathBuf>) -> Result<Option<Cgroup>, UnitError> {
    match found.as_slice() {
        [] => Ok(None),
        [one] => match Cgroup::resolve(one)? {
            cgroup if cgroup.is_populated() => Ok(Some(cgroup)),
            _ => Err(UnitError::NotRunning { name: name.to_owned(), state: "without a process".to_owned() }),
        },
        _ => Err(UnitError::Ambiguous { name: name.to_owned(), found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_type_is_a_service() {
        assert_eq!(full_name("nginx").unwrap(), "nginx.service");
        assert_eq!(full_name("org.example.App").unwrap(), "org.example.App.service");
        assert_eq!(full_name("user.slice").unwrap(), "user.slice");
        assert_eq!(full_name("getty@tty1").unwrap(), "getty@tty1.service");
        assert_eq!(full_name(r"dev-disk\x2dby.swap").unwrap(), r"dev-disk\x2dby.swap");
    }

    #[test]
    fn what_no_unit_is_called() {
        for given in ["", "-p", "../x", "a b", "nginx*", "ünit", "--version"] {
            let error = full_name(given).unwrap_err();
            assert!(matches!(error, UnitError::Name { .. }), "{given}: {error}");
            assert_eq!(error.class().status(), 2);
        }
    }

    #[test]
    fn what_the_manager_says() {
        // systemctl show of systemd 252.
        let running = State::parse(
            "Id=nginx.service\nControlGroup=/system.slice/nginx.service\nLoadState=loaded\nActiveState=active\n",
        );
        assert_eq!(running.cgroup(), Some(Path::new("/system.slice/nginx.service")));
        let stopped =
            State::parse("Id=nginx.service\nControlGroup=\nLoadState=loaded\nActiveState=inactive\n");
        assert_eq!((stopped.cgroup(), stopped.is_loaded(), stopped.active()), (None, true, "inactive"));
        let unknown = State::parse("Id=x.service\nLoadState=not-found\nActiveState=inactive\n");
        assert_eq!((unknown.cgroup(), unknown.is_loaded()), (None, false));
        let root = State::parse("Id=-.slice\nControlGroup=\nLoadState=loaded\nActiveState=active\n");
        assert_eq!(root.cgroup(), Some(Path::new("/")));
    }

    #[test]
    fn units_of_users_are_told_from_their_managers() {
        let manager = "/c/user.slice/user-1000.slice/user@1000.service";
        let unit = format!("{manager}/app.slice/web.service");
        assert!(is_unit_of_user(Path::new(&unit), "web.service"));
        assert!(is_unit_of_user(Path::new(&format!("{manager}/app.slice/_cpu.service")), "cpu.service"));
        assert!(!is_unit_of_user(Path::new(manager), "user@1000.service"));
        assert!(!is_unit_of_user(Path::new("/c/user.slice/session-1.scope"), "session-1.scope"));
        assert!(!is_unit_of_user(Path::new(&unit), "b.service"));
    }
}
