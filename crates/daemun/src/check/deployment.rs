//! Settings of a Django project against how daemun serves it.

use std::collections::HashSet;

use serde_json::Value;

use super::Examination;
use super::probe::Answer;
use crate::app::AppSettings;
use crate::codes::Finding;
use crate::config::{Configuration, HandlerSettings, RouteSettings};
use crate::django;
use crate::listener::Address;
use crate::router::HostPattern;

/// Rules that [`django::examine`] decides, for the warnings at start too.
const EXAMINED: &[&str] = &["D103", "D104", "D106", "D109", "D111", "D118", "D119", "D120", "D121", "D201", "D202"];

/// The field that daemun makes truthful, as Django writes it.
const FORWARDED: &str = "HTTP_X_FORWARDED_PROTO";

/// Checks one project; gives the routes that its settings make.
pub(super) fn check(
    configuration: &Configuration,
    app: &AppSettings,
    answer: &Answer,
    examination: &mut Examination,
) -> Vec<RouteSettings> {
    let Some(info) = &answer.django else { return Vec::new() };
    let findings = django::examine(info);
    examination.run(EXAMINED);
    for finding in findings.warnings {
        examination.add(finding);
    }
    let project = Project { configuration, app, answer };
    examination.run(&["D203", "D206", "D207", "D208", "D214"]);
    if !info.debug && !info.allowed_hosts.is_empty() {
        project.hosts(&info.allowed_hosts, examination);
    }
    project.proxy_header(examination);
    project.redirects(examination);
    project.cookies(examination);
    findings.routes
}

/// One project with what surrounds it.
struct Project<'a> {
    configuration: &'a Configuration,
    app: &'a AppSettings,
    answer: &'a Answer,
}

// === impl Project ===

impl Project<'_> {
    fn is_true(&self, setting: &str) -> bool {
        self.answer.settings.get(setting).is_some_and(|value| *value == Value::Bool(true))
    }

    fn found(&self, code: &str, setting: &str, message: String, mend: &str) -> Finding {
        let finding = Finding::new(code, message).mend(mend);
        match self.answer.places.get(setting) {
            Some(place) => finding.at(place.file.clone(), Some(place.line)),
            None => match self.answer.django.as_ref().and_then(|info| info.settings_file.clone()) {
                Some(file) => finding.at(file, None),
                None => finding,
            },
        }
    }

    /// The hosts of the routes that lead to the application.
    fn served(&self) -> impl Iterator<Item = &HostPattern> {
        let ours =
            |route: &&RouteSettings| matches!(&route.handler, HandlerSettings::App(name) if *name == self.app.name);
        let hosts = self.configuration.routes.iter().filter(ours).map(|route| &route.rule.host);
        hosts.map(|host| match host {
            HostPattern::Any => self.configuration.only_host.as_ref().unwrap_or(host),
            host => host,
        })
    }

    fn hosts(&self, allowed: &[String], examination: &mut Examination) {
        let mut seen = HashSet::new();
        // Several routes of a site have the same host.
        for host in self.served().filter(|host| seen.insert(*host)) {
            let (name, is_allowed) = match host {
                HostPattern::Any => continue,
                HostPattern::Exact(name) => (name.clone(), allows(allowed, name)),
                HostPattern::Below(suffix) => {
                    let suffix = suffix.trim_start_matches('.');
                    (format!(".{suffix}"), allows(allowed, &format!("any.{suffix}")))
                }
            };
            if !is_allowed {
                let message = format!("ALLOWED_HOSTS lacks {name}, which is served: every page there is 400");
                examination.add(self.found("D203", "ALLOWED_HOSTS", message, &format!("add \"{name}\"")));
            }
        }
    }

    fn proxy_header(&self, examination: &mut Examination) {
        let Some(name) = self.proxy_field().filter(|name| *name != FORWARDED) else { return };
        let message = format!(
            "SECURE_PROXY_SSL_HEADER is {name}, which daemun passes on as it came: any client can say it came over https"
        );
        let mend = "SECURE_PROXY_SSL_HEADER = (\"HTTP_X_FORWARDED_PROTO\", \"https\"): daemun makes that truthful";
        examination.add(self.found("D206", "SECURE_PROXY_SSL_HEADER", message, mend));
    }

    /// The field that says Django how a client came, as Django writes it.
    fn proxy_field(&self) -> Option<&str> {
        self.answer.settings.get("SECURE_PROXY_SSL_HEADER").and_then(|value| value.get(0)).and_then(Value::as_str)
    }

    /// Https that is expected, and that Django will never see.
    fn unseen(&self, middleware: &str, examination: &mut Examination) {
        let secure = |setting, needed| (middleware.contains(needed) && self.is_true(setting)).then_some(setting);
        let expected = self
            .proxy_field()
            .map(|_| "SECURE_PROXY_SSL_HEADER")
            .or_else(|| secure("SESSION_COOKIE_SECURE", "SessionMiddleware"))
            .or_else(|| secure("CSRF_COOKIE_SECURE", "CsrfViewMiddleware"));
        let Some(setting) = expected else { return };
        let message = format!(
            "{setting} expects https, but no listener is https and no proxy is trusted: Django takes every request for \
             http, and forms that come over https are 403"
        );
        let mend = "name the proxy that ends TLS, trusted_proxies = [\"127.0.0.1/32\"] in [server], or listen on https";
        examination.add(self.found("D214", setting, message, mend));
    }

    fn redirects(&self, examination: &mut Examination) {
        let server = &self.configuration.server;
        let middleware = self.answer.settings.get("MIDDLEWARE").map(ToString::to_string).unwrap_or_default();
        let may_be_https = !server.trusted_proxies.is_empty()
            // Peers on Unix sockets are trusted; of a socket that was inherited nothing is known.
            || server.listeners.iter().any(|listener| listener.tls || !matches!(listener.address, Address::Tcp(_)))
            // A field that daemun passes on as it came, which is told by itself.
            || self.proxy_field().is_some_and(|name| name != FORWARDED);
        let redirects = self.is_true("SECURE_SSL_REDIRECT") && middleware.contains("SecurityMiddleware");
        if !redirects && !may_be_https {
            self.unseen(&middleware, examination);
        }
        if redirects && !may_be_https {
            let message = "SECURE_SSL_REDIRECT is True, but no listener is https and no proxy is trusted: every page \
                           redirects to itself for ever";
            let mend =
                "name the proxy that ends TLS, trusted_proxies = [\"127.0.0.1/32\"] in [server], or listen on https";
            examination.add(self.found("D207", "SECURE_SSL_REDIRECT", message.to_owned(), mend));
        }
        let bare = self.served().find_map(|host| match host {
            HostPattern::Exact(name) if !name.starts_with("www.") => self.redirected(&format!("www.{name}"), name),
            _ => None,
        });
        if let Some(name) = bare.filter(|_| self.is_true("PREPEND_WWW") && middleware.contains("CommonMiddleware")) {
            let message = format!(
                "PREPEND_WWW is True, and the site redirects www.{name} to {name}: the browser goes to and fro for ever"
            );
            let mend = format!("hosts = [\"www.{name}\", \"{name}\"] in the [[site]], or PREPEND_WWW = False");
            examination.add(self.found("D207", "PREPEND_WWW", message, &mend));
        }
    }

    /// `to`, where a route redirects from one host to it.
    fn redirected<'a>(&self, from: &str, to: &'a str) -> Option<&'a str> {
        let leads = |route: &RouteSettings| {
            let is_from = matches!(&route.rule.host, HostPattern::Exact(name) if name == from);
            is_from
                && matches!(&route.handler, HandlerSettings::Redirect { to: target, .. } if target.contains(&format!("://{to}")))
        };
        self.configuration.routes.iter().any(leads).then_some(to)
    }

    fn cookies(&self, examination: &mut Examination) {
        let server = &self.configuration.server;
        let has_https = server.listeners.iter().any(|listener| listener.tls);
        let is_only = server.redirect_https || server.listeners.iter().all(|listener| listener.tls);
        if !has_https || !is_only {
            return;
        }
        let middleware = self.answer.settings.get("MIDDLEWARE").map(ToString::to_string).unwrap_or_default();
        for (setting, needed) in
            [("SESSION_COOKIE_SECURE", "SessionMiddleware"), ("CSRF_COOKIE_SECURE", "CsrfViewMiddleware")]
        {
            if middleware.contains(needed) && !self.is_true(setting) {
                let message = format!(
                    "{setting} is False, and the site is served over https alone: the cookie goes in the clear too"
                );
                examination.add(self.found("D208", setting, message, &format!("{setting} = True")));
            }
        }
    }
}

/// As Django decides it.
fn allows(allowed: &[String], host: &str) -> bool {
    allowed.iter().any(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('.') {
            _ if pattern == "*" => true,
            Some(domain) => host == domain || host.ends_with(&pattern),
            None => pattern == host,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn hosts_are_allowed_as_django_allows_them() {
        let allowed =
            |patterns: &[&str], host| allows(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>(), host);
        assert!(allowed(&["*"], "a.example") && allowed(&["A.example"], "a.example"));
        assert!(allowed(&[".example.com"], "example.com") && allowed(&[".example.com"], "www.example.com"));
        assert!(!allowed(&["example.com"], "www.example.com") && !allowed(&[".example.com"], "anexample.com"));
    }
}
