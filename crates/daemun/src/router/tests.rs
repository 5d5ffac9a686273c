use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::http::{CanonicalPath, Endpoint, Fields, HeadBuilder, Interim, RequestBody, Response, Scheme, Version};

/// Answers with its name and the rest of the path, or declines.
struct Named {
    name: &'static str,
    declines: bool,
}

impl Handler for Named {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move {
            if self.declines {
                return Ok(Outcome::Decline(request));
            }
            let rest = Bytes::copy_from_slice(&request.path.as_bytes()[request.prefix_length..]);
            let fields = Fields::new().with("Name", self.name.as_bytes()).with("Rest", rest);
            Ok(Outcome::Response(Response::new(Status::OK).with_fields(fields)))
        })
    }
}

fn rule(text: &str) -> Rule {
    let (host, path) = match text.split_once('/') {
        Some(("", _)) | None => (HostPattern::Any, text.to_owned()),
        Some((host, path)) => (host.parse().unwrap(), format!("/{path}")),
    };
    Rule { host, path: path.parse().unwrap(), conditions: Conditions::default(), origin: text.to_owned() }
}

/// A router whose handlers are named after their rules; those with `?` before them decline.
fn router(rules: &[&'static str]) -> Router {
    let routes = rules.iter().map(|&text| {
        let name = text.strip_prefix('?').unwrap_or(text);
        let handler: Arc<dyn Handler> = Arc::new(Named { name, declines: name != text });
        (rule(name), handler)
    });
    Router::new(routes.collect()).map_err(|ties| format!("{ties:?}")).unwrap()
}

fn request(host: &str, target: &str) -> Request {
    let text = Bytes::from(format!("{target}\n{host}"));
    let mut builder = HeadBuilder::new(text.clone(), Version::Http11, b"", &text[..target.len()]);
    builder.path(&text[..target.len()], None);
    builder.authority(&text[target.len() + 1..]);
    let head = builder.finish();
    let path = CanonicalPath::parse(&head.raw_path_bytes()).unwrap();
    let endpoint = Arc::new(Endpoint::new(None, None, Scheme::Http));
    Request {
        head,
        path,
        prefix_length: 0,
        body: RequestBody::Empty,
        endpoint,
        received: Instant::now(),
        timeout: None,
        interim: Interim::none(),
        notes: crate::http::Notes::default(),
    }
}

/// What answers: `rule rest`, `→ location`, or the status of an error.
fn answer(router: &Router, host: &str, target: &str) -> String {
    let mut future = pin!(router.handle(request(host, target)));
    let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("these handlers never wait");
    };
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    match result {
        Ok(Outcome::Response(response)) => match response.fields.get("Location") {
            Some(location) => format!("→ {}", text(Some(location))),
            None => format!("{} {}", text(response.fields.get("Name")), text(response.fields.get("Rest"))),
        },
        Ok(Outcome::Decline(_)) => "declined".to_owned(),
        Ok(Outcome::Redirect(_)) => "redirected".to_owned(),
        Err(error) => error.status.code().to_string(),
    }
}

#[test]
fn the_most_specific_path_wins_whatever_the_order() {
    let mut rules =
        ["/*", "*.php", "/media/*", "/media/private/*", "/media/*.css", "/media/a.css", "/img-*", "/a/*/edit"];
    for _ in 0..rules.len() {
        rules.rotate_left(1);
        let router = router(&rules);
        for (path, want) in [
            ("/", "/* "),
            ("/x/y", "/* x/y"),
            ("/index.php", "*.php index.php"),
            ("/.php", "*.php .php"),
            ("/php", "/* php"),
            ("/media/x.php", "/media/* x.php"),
            ("/media/", "/media/* "),
            ("/media/private/x", "/media/private/* x"),
            ("/media/private", "→ /media/private/"),
            ("/media/b.css", "/media/*.css b.css"),
            ("/media/a.css", "/media/a.css media/a.css"),
            ("/media/x/../a.css", "/media/a.css media/a.css"),
            ("/%6dedia//x", "/media/* x"),
            ("/img-1.png", "/img-* 1.png"),
            ("/a/7/edit", "/a/*/edit 7/edit"),
            ("/a/edit", "/* a/edit"),
            ("/media", "→ /media/"),
            ("/mediax", "/* mediax"),
        ] {
            assert_eq!(answer(&router, "example.com", path), want, "{path}");
        }
    }
}

#[test]
fn the_host_counts_before_the_path() {
    let router = router(&[
        "/*",
        "/long/path/*",
        "*.example.com/*",
        "*.b.example.com/*",
        "www.example.com/w/*",
        "www.example.com/long/*",
    ]);
    for (host, path, want) in [
        ("other.org", "/x", "/* x"),
        ("", "/x", "/* x"),
        ("www.example.com", "/w/x", "www.example.com/w/* x"),
        ("WWW.Example.COM:8000", "/w/x", "www.example.com/w/* x"),
        ("www.example.com.", "/w/x", "www.example.com/w/* x"),
        ("www.example.com", "/long/path/x", "www.example.com/long/* path/x"),
        ("www.example.com", "/x", "*.example.com/* x"),
        ("a.b.example.com", "/x", "*.b.example.com/* x"),
        ("b.example.com", "/x", "*.example.com/* x"),
        ("example.com", "/x", "/* x"),
        ("evilexample.com", "/x", "/* x"),
        (".example.com", "/x", "/* x"),
    ] {
        assert_eq!(answer(&router, host, path), want, "{host}{path}");
    }
    let long = "a".repeat(300) + ".example.com";
    assert_eq!(answer(&router, &long, "/x"), "/* x");
}

#[test]
fn an_unknown_host_is_misdirected_unless_a_rule_is_for_any() {
    let only_hosts = router(&["a.example/*", "*.b.example/x/*"]);
    assert_eq!(answer(&only_hosts, "a.example", "/"), "a.example/* ");
    assert_eq!(answer(&only_hosts, "c.example", "/"), "421");
    assert_eq!(answer(&only_hosts, "", "/"), "421");
    assert_eq!(answer(&only_hosts, "www.b.example", "/"), "404");
    let with_any = router(&["a.example/*", "/x/*"]);
    assert_eq!(answer(&with_any, "c.example", "/x/1"), "/x/* 1");
    assert_eq!(answer(&with_any, "c.example", "/"), "404");
    assert_eq!(answer(&router(&[]), "c.example", "/"), "404");
}

#[test]
fn a_decline_goes_to_the_next_best_match_across_hosts() {
    let declining = router(&["/*", "?/static/*", "?/static/*.css", "?/static/a.css", "?a.example/*"]);
    assert_eq!(answer(&declining, "a.example", "/static/a.css"), "/* static/a.css");
    let all = router(&["?/*", "?/static/*"]);
    assert_eq!(answer(&all, "a.example", "/static/a.css"), "404");
}

/// Redirects locally to the next path after its rule's, as long as there is one.
struct Onward(&'static [&'static str]);

impl Handler for Onward {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move {
            let place = self.0.iter().position(|path| path.as_bytes() == request.path.as_bytes());
            let next = self.0[(place.unwrap() + 1) % self.0.len()];
            Ok(Outcome::Redirect(Box::new(request.redirected(next.as_bytes(), Some(b"from=local")).unwrap())))
        })
    }
}

#[test]
fn a_local_redirect_is_answered_by_the_route_that_it_leads_to_and_a_loop_of_them_ends() {
    let named: Arc<dyn Handler> = Arc::new(Named { name: "end", declines: false });
    let declines: Arc<dyn Handler> = Arc::new(Named { name: "declines", declines: true });
    let router = Router::new(vec![
        (rule("/a"), Arc::new(Onward(&["/a", "/end/x%20y"])) as Arc<dyn Handler>),
        (rule("/end/*"), declines),
        (rule("/*"), named),
        (rule("/loop"), Arc::new(Onward(&["/loop"]))),
    ]);
    let router = router.map_err(|ties| format!("{ties:?}")).unwrap();
    assert_eq!(answer(&router, "", "/a"), "end end/x y");
    assert_eq!(answer(&router, "", "/loop"), "500");
}

#[test]
fn an_exact_rule_answers_the_folder_instead_of_the_redirect() {
    let router = router(&["/static/*", "/static", "/docs/*.html"]);
    assert_eq!(answer(&router, "", "/static"), "/static static");
    assert_eq!(answer(&router, "", "/docs"), "404");
}

#[test]
fn ties_are_told_all_at_once() {
    let handler: Arc<dyn Handler> = Arc::new(Named { name: "", declines: false });
    let rules = ["/a/*", "/b", "/a/*", "Example.com/b", "example.com/b", "*.php", "/*.php"];
    let routes = rules.iter().map(|text| {
        let mut rule = rule(if *text == "*.php" { "/*.php" } else { text });
        rule.origin = (*text).to_owned();
        (rule, Arc::clone(&handler))
    });
    let ties = Router::new(routes.collect()).err().unwrap();
    let told: Vec<String> = ties.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`/a/*` on host `*` stands at /a/* and at /a/*; which of them answers?",
            "`/b` on host `example.com` stands at Example.com/b and at example.com/b; which of them answers?",
            "`/*.php` on host `*` stands at *.php and at /*.php; which of them answers?",
        ]
    );
}
