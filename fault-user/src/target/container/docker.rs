//! Docker, asked over its socket (Docker Engine API, `GET /containers/json`). No HTTP library: it is one question, and a
//! server answers HTTP/1.0 with the plain answer and then hangs up.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{Container, Engine};

/// How long an engine may take to answer. It is looked for in the middle of a session.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest answer: about 1 KiB for each container.
const LONGEST: u64 = 16 << 20;
/// The engine of the machine, and where those of users have their sockets (rootless mode).
const MACHINE: &str = "/run/docker.sock";
const USERS: &str = "/run/user";

/// All containers of the Docker engines that answer. One that does not is as good as not there: its containers are
/// found by their ids.
pub(super) fn containers() -> Vec<Container> {
    sockets().iter().filter_map(|socket| ask(socket).ok()).flat_map(|answer| parse(&answer)).collect()
}

fn sockets() -> Vec<PathBuf> {
    let users = fs::read_dir(USERS).into_iter().flatten().flatten();
    let of_users = users.map(|user| user.path().join("docker.sock"));
    [PathBuf::from(MACHINE)].into_iter().chain(of_users).filter(|path| path.exists()).collect()
}

/// The body of the answer.
fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /containers/json?all=1 HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What follows the head of a good answer.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = answer.split(|byte| *byte == b'\r').next()?;
    let is_good = status.starts_with(b"HTTP/1.") && status.get(9..12) == Some(b"200");
    is_good.then(|| &answer[end + 4..])
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Vec<String>,
}

fn parse(body: &[u8]) -> Vec<Container> {
    let listed: Vec<Listed> = serde_json::from_slice(body).unwrap_or_default();
    listed
        .into_iter()
        .map(|one| Container {
            engine: Engine::Docker,
            names: one.names.iter().flat_map(|name| names(name)).collect(),
            id: one.id,
            cgroup: None,
        })
        .collect()
}

/// `/web` is `web` (and `/web/alias` a link's name for it, which is none). cri-dockerd's
/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT` is also `POD/NAMESPACE/CONTAINER`.
fn names(listed: &str) -> Vec<String> {
    let name = listed.strip_prefix('/').unwrap_or(listed);
    if name.contains('/') {
        return Vec::new();
    }
    let mut names = vec![name.to_owned()];
    if let ["k8s", container, pod, namespace, _, _] = name.split('_').collect::<Vec<_>>().as_slice()
        && *container != "POD"
    {
        names.push(format!("{pod}/{namespace}/{container}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer() {
        // dockerd 20.10.
        let answer = b"HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\n\
            [{\"Id\":\"beef\",\"Names\":[\"/other/db\",\"/web\"],\"State\":\"running\"},{\"Id\":\"cafe\"}]\n";
        let found = parse(body(answer).unwrap());
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].id.as_str(), found[0].names.as_slice()), ("beef", &["web".to_owned()][..]));
        assert_eq!(found[1].names, [""; 0]);
    }

    #[test]
    fn no_answer() {
        assert_eq!(body(b"HTTP/1.0 500 Internal Server Error\r\n\r\n[]"), None);
        assert_eq!(body(b"SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(body(b""), None);
        assert!(parse(b"{\"message\":\"no\"}").is_empty());
    }

    #[test]
    fn names_of_pods() {
        assert_eq!(names("/k8s_app_web-0_prod_1234_0"), ["k8s_app_web-0_prod_1234_0", "web-0/prod/app"]);
        assert_eq!(names("/k8s_POD_web-0_prod_1234_0"), ["k8s_POD_web-0_prod_1234_0"]);
        assert_eq!(names("/web"), ["web"]);
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        assert!(ask(&path).is_err());
        let silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(ask(&path).is_err());
        drop(silent);
    }
}
