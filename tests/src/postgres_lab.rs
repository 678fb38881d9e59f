//! PostgreSQL servers of Debian's package on a file system of the test's, reached through sockets in their directories.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, User},
};

use crate::process::Ended;

/// Debian keeps the programs of each version apart.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long a server may take to come up or back, emulated and in the middle of a recovery.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a directory of its own, ended when dropped.
pub struct Postgres {
    process: Option<Child>,
    directory: PathBuf,
    account: Account,
}

/// Whom the servers run as: they refuse to be root's.
#[derive(Clone, Copy)]
struct Account {
    user: Uid,
    group: Gid,
}

impl Account {
    fn postgres() -> anyhow::Result<Self> {
        let user = User::from_name("postgres")?.context("no user `postgres`: is the package installed?")?;
        Ok(Self { user: user.uid, group: user.gid })
    }

    fn command(self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program_path(program)?);
        // A directory that it may enter, whatever ours is.
        command.uid(self.user.as_raw()).gid(self.group.as_raw()).current_dir("/");
        Ok(command)
    }

    fn owns(self, directory: &Path) -> anyhow::Result<()> {
        Ok(nix::unistd::chown(directory, Some(self.user), Some(self.group))?)
    }
}

/// A program of the newest version there is.
fn program_path(name: &str) -> anyhow::Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(VERSIONS)
        .context(VERSIONS)?
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().with_context(|| format!("no {name} below {VERSIONS}"))
}

fn succeeds(command: &mut Command) -> anyhow::Result<Ended> {
    let ended = Ended::of(command)?;
    ensure!(ended.status.success(), "{command:?}: {ended:?}");
    Ok(ended)
}

/// `count` servers with the same empty database, their directories in `place`, none of them started.
///
/// # Errors
/// When there is no PostgreSQL, or initdb fails.
pub fn make(place: &Path, count: usize) -> anyhow::Result<Vec<Postgres>> {
    let account = Account::postgres()?;
    // For everybody to enter: the servers' user has no part in it.
    fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let directory = |number: usize| place.join(format!("postgres-{number}"));
    let first = directory(0);
    fs::create_dir(&first)?;
    account.owns(&first)?;
    succeeds(
        account
            .command("initdb")?
            .args(["--no-sync", "--no-locale", "-E", "UTF8", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&first),
    )?;
    (0..count)
        .map(|number| {
            let directory = directory(number);
            if number > 0 {
                succeeds(Command::new("cp").arg("-a").arg(&first).arg(&directory))?;
            }
            Ok(Postgres { process: None, directory, account })
        })
        .collect()
}

impl Postgres {
    /// A copy of this server that follows it over TCP, on `port` of loopback; not started.
    ///
    /// # Errors
    /// When pg_basebackup(1) fails.
    pub fn replica(&self, port: u16) -> anyhow::Result<Self> {
        let directory = self.directory.with_extension("replica");
        fs::create_dir(&directory)?;
        self.account.owns(&directory)?;
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        succeeds(
            self.account
                .command("pg_basebackup")?
                .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
                .args([
                    "--write-recovery-conf",
                    "--wal-method=stream",
                    "--checkpoint=fast",
                    "--no-sync",
                    "-D",
                ])
                .arg(&directory),
        )?;
        // Of the socket, which lies in the directory.
        let lock = directory.join(format!(".s.PGSQL.{port}.lock"));
        if lock.exists() {
            fs::remove_file(lock)?;
        }
        Ok(Self { process: None, directory, account: self.account })
    }

    /// Its data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it runs already, or does not come up; with its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_with(&[])
    }

    /// The same with more settings, which count more than the usual ones.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with(&mut self, settings: &[&str]) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "it runs already");
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log_path())?;
        let mut command = self.account.command("postgres")?;
        command.arg("-D").arg(&self.directory).arg("-k").arg(&self.directory);
        // What does I/O by itself and at times of its own is kept quiet, and pages do not stay in memory.
        let usual = ["listen_addresses=", "autovacuum=off", "shared_buffers=1MB", "logging_collector=off"];
        for setting in usual.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().with_context(|| format!("{command:?}"))?);
        self.answers()
    }

    /// PID of its first process, the father of all others.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> anyhow::Result<String> {
        Ok(self.process.as_ref().context("the server does not run")?.id().to_string())
    }

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// When it does not within a minute; with its log.
    pub fn answers(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended =
                Ended::of(self.account.command("pg_isready")?.arg("-q").arg("-h").arg(&self.directory))?;
            if ended.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("PostgreSQL does not answer: {}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs SQL, a line each, in one connection; what it prints is the rows alone.
    ///
    /// # Errors
    /// When psql cannot be started. That the server fails is in what it returns.
    pub fn sql(&self, lines: &str) -> anyhow::Result<Ended> {
        let mut psql = self.account.command("psql")?;
        psql.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-d", "postgres", "-f", "-", "-h"])
            .arg(&self.directory);
        Ended::with_input(&mut psql, lines.as_bytes())
    }

    /// What it has logged.
    ///
    /// # Errors
    /// When it never ran.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.log_path())?)
    }

    fn log_path(&self) -> PathBuf {
        // Beside its directory: errors of the disk must not keep it from saying so.
        std::env::temp_dir().join(format!(
            "fault-e2e-{}-{}.log",
            std::process::id(),
            self.directory.file_name().unwrap_or_default().to_string_lossy()
        ))
    }

    /// Ends it as a crash would, without writing anything more.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the server does not run")?;
        kill(Pid::from_raw(process.id() as i32), Signal::SIGQUIT)?;
        process.wait()?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.crash()
        {
            eprintln!("ending PostgreSQL: {error}");
        }
        // There may be none.
        let _ = fs::remove_file(self.log_path());
    }
}
