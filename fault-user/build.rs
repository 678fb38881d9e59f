//! Compiles `fault-ebpf` for the kernel and puts the object where the library embeds it.
//!
//! The eBPF crate needs a compiler with its library source (`-Z build-std`) and `bpf-linker`; everything else
//! builds on stable. When something is missing the build goes on with an empty object, warns with the
//! remedy, and the `fault` binary refuses to arm anything with the same sentence.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const OBJECT: &str = "fault-ebpf.o";
/// The toolchain `cargo xtask setup` links when rustup has no nightly with rust-src.
const LINKED_TOOLCHAIN: &str = "fault-bpf";
/// Where `cargo xtask setup` puts bpf-linker, below the user's cache directory.
const LINKER_IN_CACHE: &str = "fault/bpf-linker-0.13.0/bin/bpf-linker";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = manifest.parent().expect("fault-user lies in the workspace").to_path_buf();
    for path in ["fault-ebpf/src", "fault-ebpf/Cargo.toml", "fault-common/src", "fault-common/build.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");

    let object = out.join(OBJECT);
    let missing = match compile(&root, &out, &object) {
        Ok(()) => String::new(),
        Err(Failure::Missing(what)) => {
            println!("cargo::warning=fault is built WITHOUT its eBPF programs and can arm nothing: {what}");
            fs::write(&object, []).expect("OUT_DIR is writable");
            what
        }
        Err(Failure::Compiler(what)) => {
            println!("cargo::error=compiling fault-ebpf failed: {what}");
            fs::write(&object, []).expect("OUT_DIR is writable");
            what
        }
    };
    println!("cargo::rustc-env=FAULT_EBPF_OBJECT={}", object.display());
    println!("cargo::rustc-env=FAULT_EBPF_MISSING={}", missing.replace('\n', " "));
}

enum Failure {
    /// Something is not installed.
    Missing(String),
    /// Everything is there and the code does not compile.
    Compiler(String),
}

fn compile(root: &Path, out: &Path, object: &Path) -> Result<(), Failure> {
    let toolchain = toolchain()?;
    let linker = linker()?;
    // <target>/<profile>/build/<package>/out: one directory below <target> for all profiles, because OUT_DIR
    // changes with every change of this package and the core library need not be built again for that.
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("fault-ebpf");
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", &toolchain, "cargo", "build", "--release", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--manifest-path"])
        .arg(root.join("fault-ebpf/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .args(["--features", if env::var_os("CARGO_FEATURE_LOG").is_some() { "log" } else { "" }])
        // Inherited from the outer cargo, these would select its compiler and flags.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTUP_TOOLCHAIN")
        // A distribution's compiler is a stable one; build-std is not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                "--cfg=bpf_target_arch=\"x86_64\"",
                "-Cdebuginfo=2",
                "-Ctarget-cpu=v3",
                "-Clink-arg=--btf",
                // Clearing or copying a few fields becomes a few stores, not a call that goes byte by byte.
                "-Clink-arg=--disable-expand-memcpy-in-order",
            ]
            .map(|flag| flag.replace("x86_64", &env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default()))
            .join("\x1f"),
        );
    let output =
        cargo.output().map_err(|error| Failure::Missing(format!("rustup could not be run: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        for line in text.lines() {
            println!("cargo::warning={line}");
        }
        return Err(Failure::Compiler(format!("cargo ended with {}", output.status)));
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if line.starts_with("warning") {
            println!("cargo::warning=fault-ebpf: {line}");
        }
    }
    let built = target_dir.join("bpfel-unknown-none/release/fault-ebpf");
    fs::copy(&built, object)
        .map(|_| ())
        .map_err(|error| Failure::Compiler(format!("copying {} failed: {error}", built.display())))
}

/// A toolchain that has the library's source: a nightly with rust-src, or the linked distribution's compiler.
fn toolchain() -> Result<String, Failure> {
    // What set-up has linked comes first: it made sure that bpf-linker can read that compiler's output.
    for name in [LINKED_TOOLCHAIN, "nightly"] {
        let sysroot = Command::new("rustup")
            .args(["run", name, "rustc", "--print", "sysroot"])
            .env_remove("RUSTUP_TOOLCHAIN")
            .stderr(Stdio::null())
            .output();
        if let Ok(output) = sysroot
            && output.status.success()
            && let Ok(path) = String::from_utf8(output.stdout)
            && Path::new(path.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
        {
            return Ok(name.to_owned());
        }
    }
    Err(Failure::Missing(
        "no Rust toolchain with library source was found (a rustup nightly with the rust-src component, or \
         the distribution's rustc and rust-src packages); `cargo xtask setup` installs one"
            .to_owned(),
    ))
}

fn linker() -> Result<PathBuf, Failure> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let cached = cache.map(|cache| cache.join(LINKER_IN_CACHE)).filter(|path| path.is_file());
    let on_path = || {
        env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("bpf-linker")).find(|path| path.is_file())
    };
    cached.or_else(on_path).ok_or_else(|| {
        Failure::Missing(
            "bpf-linker 0.13 was found neither in the cache nor on PATH; `cargo xtask setup` installs it"
                .to_owned(),
        )
    })
}
