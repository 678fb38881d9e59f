//! What execve(2) will be given, prepared before the child exists: between fork and exec of a threaded program
//! nothing may be allocated.

use std::{
    env,
    ffi::{CString, OsStr, OsString, c_char},
    os::unix::ffi::{OsStrExt, OsStringExt},
    ptr,
};

use super::CommandError;

/// Where programs are looked for when `PATH` is not set, as confstr(3) has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
const SHELL: &[u8] = b"/bin/sh";

/// A program with its arguments.
pub(super) struct Image {
    /// As the user wrote it.
    pub program: OsString,
    /// Files to try, in the order of `PATH`.
    candidates: Vec<CString>,
    #[expect(dead_code, reason = "owns what `argv` and `shell_argv` point to")]
    arguments: Vec<CString>,
    /// `arguments` for execve(2).
    argv: Vec<*const c_char>,
    /// `argv` of `/bin/sh CANDIDATE ARGUMENTS…`, for a file without `#!` line; the candidate is put in later.
    shell_argv: Vec<*const c_char>,
    shell: CString,
}

impl Image {
    pub(super) fn new(command: &[OsString]) -> Result<Self, CommandError> {
        let program = command.first().filter(|program| !program.is_empty()).ok_or(CommandError::Empty)?;
        let arguments = command.iter().map(|argument| text(argument)).collect::<Result<Vec<_>, _>>()?;
        let candidates = candidates(program, env::var_os("PATH").as_deref())
            .into_iter()
            .map(|candidate| text(&candidate))
            .collect::<Result<Vec<_>, _>>()?;
        let shell = text(OsStr::from_bytes(SHELL))?;
        let argv = arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
        let shell_argv = [shell.as_ptr(), ptr::null()]
            .into_iter()
            .chain(arguments.iter().skip(1).map(|argument| argument.as_ptr()))
            .chain([ptr::null()])
            .collect();
        Ok(Self { program: program.clone(), candidates, arguments, argv, shell_argv, shell })
    }

    /// Becomes the program. Returns only if that fails, with the error number a shell would report.
    ///
    /// Async-signal-safe: makes system calls and touches prepared memory, nothing else.
    pub(super) fn execute(&mut self) -> i32 {
        unsafe extern "C" {
            static environ: *const *const c_char;
        }
        let mut worst = libc::ENOENT;
        for candidate in &self.candidates {
            // SAFETY: both arrays end with a null pointer and point to strings that `self` owns; `environ` is
            // the C library's own array.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), environ) };
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                // There may be one further down the path that can be executed.
                libc::EACCES => worst = libc::EACCES,
                libc::ENOEXEC => {
                    self.shell_argv[1] = candidate.as_ptr();
                    // SAFETY: as above.
                    unsafe { libc::execve(self.shell.as_ptr(), self.shell_argv.as_ptr(), environ) };
                    return libc::ENOEXEC;
                }
                other => return other,
            }
        }
        worst
    }
}

/// Last error number of this thread, without the detour through [`std::io::Error`].
pub(super) fn errno() -> i32 {
    // SAFETY: the C library's pointer to a variable of this thread.
    unsafe { *libc::__errno_location() }
}

fn text(argument: &OsStr) -> Result<CString, CommandError> {
    CString::new(argument.as_bytes()).map_err(|_| CommandError::Nul(argument.into()))
}

/// The files execvp(3) would try.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes();
    path.split(|&byte| byte == b':')
        .map(|directory| {
            // An empty entry is the working directory.
            let mut file = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
            file.push(b'/');
            file.extend(program.as_bytes());
            OsString::from_vec(file)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_follow_the_path() {
        let of = |program: &str, path: Option<&str>| candidates(program.as_ref(), path.map(OsStr::new));
        assert_eq!(of("ls", Some("/a:/b:")), ["/a/ls", "/b/ls", "./ls"]);
        assert_eq!(of("ls", None), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(of("./ls", Some("/a")), ["./ls"]);
    }
}
