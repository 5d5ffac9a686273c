//! Builds the accelerator of application workers, which the program carries inside itself beside the shim.
//!
//! It is one more library of this crate and no crate of its own: an artifact of one target inside another needs a
//! nightly cargo, and this way `cargo install` and `pip install` need nothing that they do not need anyway. It depends
//! on nothing but `core` and `alloc`, so the compiler is called once, for a second.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=accelerator");
    println!("cargo::rerun-if-changed=src/app/handover/flags.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("daemun_accelerator.so");
    if is_supported() {
        compile(&out);
    } else {
        // Workers then do with the shim.
        std::fs::write(&out, b"").expect("cargo's folder is writable");
    }
}

/// Layouts of the C API are written down for 64 bits.
fn is_supported() -> bool {
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        && is("CARGO_CFG_TARGET_ENDIAN", "little")
}

fn compile(out: &Path) {
    let mut command = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    command.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "daemun_accelerator"]);
    command.args(["-C", "panic=abort", "-C", "opt-level=3", "-C", "lto=fat", "-C", "codegen-units=1"]);
    command.args(["-C", "strip=symbols"]);
    // A target whose programs are linked statically can still make this: it is linked with nothing.
    command.args(["-C", "target-feature=-crt-static"]);
    command.arg("--target").arg(env::var_os("TARGET").expect("cargo sets it"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    command.arg("accelerator/lib.rs").arg("-o").arg(out);
    let status = command.status().expect("the compiler that builds this can be started");
    assert!(status.success(), "the accelerator of application workers could not be built");
}
