//! The `daemun` program.

fn main() {}
