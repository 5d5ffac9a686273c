//! Tests that speak the wire: a client's bytes in, a server's bytes out, over a pair of Unix sockets.

mod attacks;
mod bodies;
mod deadlines;
mod life;
mod responses;
mod support;
mod valid;

/// The conformance pages name a test for each row; a name that is gone would be an empty promise.
#[test]
fn every_test_that_the_conformance_pages_name_is_there() {
    let sources = [
        ("connection::tests::attacks::", include_str!("attacks.rs")),
        ("connection::tests::bodies::", include_str!("bodies.rs")),
        ("connection::tests::deadlines::", include_str!("deadlines.rs")),
        ("connection::tests::life::", include_str!("life.rs")),
        ("connection::tests::responses::", include_str!("responses.rs")),
        ("connection::tests::valid::", include_str!("valid.rs")),
        ("http::path::tests::", include_str!("../../http/path.rs")),
        ("http::fields::tests::", include_str!("../../http/fields.rs")),
        ("http::forwarded::tests::", include_str!("../../http/forwarded.rs")),
        ("http::h1::authority::tests::", include_str!("../../http/h1/authority.rs")),
        ("http::h1::tests::", include_str!("../../http/h1/tests.rs")),
        ("http::h2::tests::", include_str!("../../http/h2.rs")),
        ("http::trailers::tests::", include_str!("../../http/trailers.rs")),
        ("static_files::tests::answers::", include_str!("../../static_files/tests/answers.rs")),
        ("static_files::tests::containment::", include_str!("../../static_files/tests/containment.rs")),
        ("static_files::range::tests::", include_str!("../../static_files/range.rs")),
        ("respond::page::tests::", include_str!("../../respond/page.rs")),
        ("filter::early_hints::page::tests::", include_str!("../../filter/early_hints/page.rs")),
        ("tls::facts::tests::", include_str!("../../tls/facts.rs")),
        ("telemetry::escape::tests::", include_str!("../../telemetry/escape.rs")),
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conformance/");
    for page in ["rfc9113.md", "attacks.md"] {
        let text = std::fs::read_to_string(format!("{folder}{page}")).unwrap();
        let mut rows = 0;
        for name in text.split('`').filter(|part| part.contains("tests::")) {
            let found = sources.iter().find_map(|(module, source)| Some((name.strip_prefix(module)?, source)));
            let (function, source) = found.unwrap_or_else(|| panic!("{page}: {name} is in no known module"));
            assert!(source.contains(&format!("fn {function}()")), "{page}: {name} is not there");
            rows += 1;
        }
        assert!(rows > 5, "{page}");
    }
}
