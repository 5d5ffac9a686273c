//! Faults of sites, conditions and filters, word for word.

use super::{faults, valid};
use crate::config::HandlerSettings;

fn route(line: &str) -> String {
    faults(&format!("[[route]]\nrespond = {{}}\n{line}"))
}

#[test]
fn every_fault_of_a_filter_says_what_was_expected() {
    for (line, want) in [
        (
            "allow = [\"10.0.0.0/33\"]",
            "3:10: `allow` in [[route]]: a network of 10.0.0.0 has at most 32 bits, found \"10.0.0.0/33\"",
        ),
        (
            "deny = []",
            "3:8: `deny` in [[route]]: expected a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"], or \"all\", found an empty list",
        ),
        (
            "rate_limit = { rate = \"5\" }",
            "3:23: `rate` in `rate_limit`: expected a rate such as \"50/s\", \"100/m\" or \"1000/h\", found \"5\"",
        ),
        ("rate_limit = { burst = 5 }", "3:14: `rate_limit` in [[route]]: a `rate` is missing, such as \"50/s\""),
        (
            "rate_limit = { rate = \"5/s\", per = \"ip\" }",
            "3:36: `per` in `rate_limit`: expected \"client\", \"header:NAME\" or \"cookie:NAME\", found \"ip\"",
        ),
        (
            "headers = { set = { Connection = \"x\" } }",
            "3:34: `Connection` in `set`: only the server itself knows what it has to be",
        ),
        (
            "headers = { set = { \"A B\" = \"x\" } }",
            "3:29: `A B` in `set`: expected a name of letters, digits and `-`, and a value without control characters",
        ),
        (
            "headers = { cors = { credentials = true } }",
            "3:20: `cors` in `headers`: `credentials` for any origin would give every site the user's session: name the `origins`",
        ),
        (
            "headers = { cors = { origins = [\"example.com\"] } }",
            "3:33: `origins` in `cors`: expected an origin such as \"https://app.example.com\", without a path, found \"example.com\"",
        ),
        (
            "basic_auth = { realm = \"x\" }",
            "3:14: `basic_auth` in [[route]]: there is nobody who may: name a `file` made by `htpasswd -B`, or `users`",
        ),
        (
            "basic_auth = { users = { a = \"secret\" } }",
            "3:30: `a` in `users`: expected a hash by bcrypt ($2y$…), argon2 ($argon2id$…) or apr1 ($apr1$…); make one with `htpasswd -nB NAME`",
        ),
        (
            "basic_auth = { file = \"none\" }",
            "3:23: `file` in `basic_auth`: cannot read /T/none: No such file or directory (os error 2)",
        ),
        (
            "rewrite = { pattern = \"(\", to = \"/\" }",
            "3:11: `rewrite` in [[route]]: not a regular expression: unclosed group",
        ),
        (
            "rewrite = \"/{name}\"",
            "3:11: `rewrite` in [[route]]: `{name}` cannot be inserted; expected `{path}`, `{rest}`, `{query}` or a group of the pattern",
        ),
        ("rewrite = \"x\"", "3:11: `rewrite` in [[route]]: expected a path that starts with `/` or `{path}`"),
        (
            "path = \"/a/*\"\nstrip_prefix = \"/b\"",
            "4:16: `strip_prefix` in [[route]]: it is for handlers that pass the path on; files are found by what follows the prefix anyway\ndaemun.toml:4:16: `strip_prefix` in [[route]]: no path of the route begins with \"/b\"",
        ),
        (
            "path = \"/a\"\nstrip_prefix = true",
            "4:16: `strip_prefix` in [[route]]: `true` strips what stands before the `*` of `path`, and there is none",
        ),
        ("compress = { level = 9 }", "3:22: `level` in `compress`: expected a number from 1 to 5, found the number 9"),
        (
            "compress = { codings = [\"deflate\"] }",
            "3:25: `codings` in `compress`: expected \"zstd\", \"br\" or \"gzip\", found \"deflate\"",
        ),
        ("cache = { tll = \"5s\" }", "3:11: unknown key `tll` in `cache`; did you mean `ttl`?"),
        (
            "errors = { 200 = \"x.html\" }",
            "3:18: `200` in `errors`: expected a status from 400 to 599, `4xx`, `5xx` or `intercept`",
        ),
        (
            "errors = { 404 = \"x.html\" }",
            "3:18: `404` in `errors`: cannot read /T/x.html: No such file or directory (os error 2)",
        ),
        ("timeout = 5", "3:11: `timeout` in [[route]]: expected a duration such as \"5s\", found the number 5"),
        (
            "method = \"\"",
            "3:10: `method` in [[route]]: expected a method such as \"GET\", or a list of them, found \"\"",
        ),
        (
            "header = { X-A = \"1\", x-a = \"2\" }",
            "3:29: `x-a` in `header`: this header stands here twice: names are the same in any case",
        ),
        (
            "header = { X-A = \"a*b*c\" }",
            "3:18: `X-A` in `header`: expected a value such as \"beta\", \"beta*\", \"*beta\" or \"*beta*\", found \"a*b*c\"",
        ),
    ] {
        assert_eq!(route(line), format!("daemun.toml:{want}"), "{line}");
    }
}

#[test]
fn every_fault_of_a_site_says_what_was_expected() {
    for (text, want) in [
        (
            "[[site]]\nhosts = []\nrespond = {}",
            "daemun.toml:2:9: `hosts` in [[site]]: expected a list of hosts such as [\"example.com\", \"www.example.com\"], found an empty list",
        ),
        (
            "[[site]]\nhosts = [\"a.b\", \"A.b\"]\nrespond = {}",
            "daemun.toml:2:17: `hosts` in [[site]]: `a.b` stands here twice",
        ),
        (
            "[[site]]\nhosts = [\"a.b\"]",
            "daemun.toml:1:1: a site needs something that answers: a handler such as `app`, or a [[site.route]]",
        ),
        (
            "[[site]]\nhosts = [\"a.b\"]\n[[site.route]]\nhost = \"c.d\"\nrespond = {}",
            "daemun.toml:4:8: `host` in [[site.route]]: the hosts stand in its [[site]]",
        ),
        (
            "[[site]]\nhosts = [\"a.b\"]\nrespond = {}\n[[site]]\nhosts = [\"a.b\"]\nrespond = {}",
            "daemun.toml:4:1: a route for `/*` on host `a.b` stands already at daemun.toml:1:1; which of them answers?",
        ),
    ] {
        assert_eq!(faults(text), want, "{text}");
    }
}

#[test]
fn a_site_is_a_route_for_each_of_its_hosts() {
    let text = "[[site]]\nhosts = [\"a.b\", \"www.a.b\", \"*.a.b\"]\nrespond = {}\ncompress = true\n\
                [[site.route]]\npath = \"/x\"\ncompress = false\nrespond = {}\n[[site]]\nhosts = [\"c.d\"]\nrespond = {}";
    let configuration = valid(text);
    let told: Vec<String> = configuration
        .routes
        .iter()
        .map(|route| {
            let kind = if matches!(route.handler, HandlerSettings::Redirect { .. }) { " redirects" } else { "" };
            let compress = if route.filters.compress.is_some() { " compressed" } else { "" };
            format!("{}{}{kind}{compress}", route.rule.host, route.rule.path)
        })
        .collect();
    let want = ["a.b/* compressed", "a.b/x", "*.a.b/* compressed", "*.a.b/x", "www.a.b/* redirects", "c.d/*"];
    assert_eq!(told, want);
}
