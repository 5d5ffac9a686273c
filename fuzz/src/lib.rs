//! What every fuzz target asks: not only that no bytes make a reader panic, but that what it made of them is right.
//!
//! The same functions run under libFuzzer (`scripts/fuzz`) and, over the corpus, what was found, and seeded mutations of
//! both, in `cargo test` (`crates/daemun/tests/fuzz`).

mod application;
mod configuration;
mod connection;
mod gateways;
mod heads;

/// What looks at bytes, and panics where something is wrong.
pub type Target = fn(&[u8]);

/// All of them, by the names of their folders in `corpus` and `findings`.
pub const TARGETS: [(&str, Target); 13] = [
    ("request_head", heads::request_head),
    ("chunked", heads::chunked),
    ("path", heads::path),
    ("authority", heads::authority),
    ("answer_head", heads::answer_head),
    ("forwarded", connection::forwarded),
    ("proxy_protocol", connection::proxy_protocol),
    ("configuration", configuration::configuration),
    ("cgi_head", application::cgi_head),
    ("frames", application::frames),
    ("fastcgi", gateways::fastcgi),
    ("scgi", gateways::scgi),
    ("uwsgi", gateways::uwsgi),
];
