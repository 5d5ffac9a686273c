//! What a Django project's own settings make of the routes: its static and media files, and what will go wrong.
//!
//! The facts were asked for inside the interpreter that has imported the WSGI module, so routes and application cannot
//! disagree. Nothing is read from the project here.

pub mod collect;
mod whitenoise;

use std::path::Path;

use crate::app::{DjangoInfo, Finder};
use crate::codes::Finding;
use crate::config::{HandlerSettings, RouteSettings};
use crate::filter::FilterSettings;
use crate::router::{Conditions, HostPattern, PathPattern, Rule};
use crate::static_files::{Owner, Root, Source, StaticSettings};

/// What the settings come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// Routes beside the application's.
    pub routes: Vec<RouteSettings>,
    /// Warnings for the start-up lines: what is wrong, where, and the mend.
    pub warnings: Vec<Finding>,
}

/// Works out routes and warnings for a project that answers below `mount`.
pub fn examine(info: &DjangoInfo) -> Findings {
    let mut findings = Findings::default();
    warn_of_settings(info, &mut findings.warnings);
    static_route(info, &mut findings);
    media_route(info, &mut findings);
    whitenoise::root_routes(info, &mut findings);
    whitenoise::warn(info, &mut findings.warnings);
    findings
}

/// The same where somebody develops the project: that `DEBUG` is on is as it should be.
pub fn examine_for_development(info: &DjangoInfo) -> Findings {
    let mut findings = examine(info);
    findings.warnings.retain(|warning| warning.code != DEBUG_IS_TRUE);
    findings
}

/// The code of the warning of `DEBUG`.
const DEBUG_IS_TRUE: &str = "D201";

/// A mistake in a setting.
fn finding(info: &DjangoInfo, code: &str, setting: &str, message: String) -> Finding {
    let file = info.settings_file.as_deref().unwrap_or("settings");
    Finding::new(code, message).at(file, info.lines.get(setting).copied())
}

/// Adds what was found for an application, on each host on which it answers, where no route of the file says otherwise.
/// What another project has taken already comes back as warnings.
pub fn add(routes: &mut Vec<RouteSettings>, app: &str, found: &[RouteSettings]) -> Vec<String> {
    let leads_there = |route: &&RouteSettings| matches!(&route.handler, HandlerSettings::App(name) if name == app);
    let mut hosts: Vec<HostPattern> = Vec::new();
    for route in routes.iter().filter(leads_there) {
        if !hosts.contains(&route.rule.host) {
            hosts.push(route.rule.host.clone());
        }
    }
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let mut warnings = Vec::new();
    for (host, mut route) in hosts.iter().flat_map(|host| found.iter().cloned().map(move |route| (host, route))) {
        route.rule.host = host.clone();
        let taken = |other: &&RouteSettings| other.rule.path == route.rule.path && other.rule.host == route.rule.host;
        match routes.iter().find(taken) {
            None => routes.push(route),
            Some(other) if other.rule.origin.starts_with(ORIGIN) && other.handler != route.handler => {
                let path = &route.rule.path;
                warnings.push(format!(
                    "{app}: {path} is another project's already ({}), so these files are not served; give each project a URL \
                     of its own ({})",
                    other.rule.origin, route.rule.origin
                ));
            }
            Some(_) => {}
        }
    }
    warnings
}

/// How the origin of a route begins that settings have made.
const ORIGIN: &str = "from Django: ";

/// `settings.py:28`, or the bare name where the line is not known.
fn place(info: &DjangoInfo, setting: &str) -> String {
    let file = info
        .settings_file
        .as_deref()
        .map_or("settings", |file| Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file));
    info.lines.get(setting).map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
}

fn warn_of_settings(info: &DjangoInfo, warnings: &mut Vec<Finding>) {
    if info.debug {
        let message = "DEBUG is True: errors show settings and code to everybody, and static files come straight from \
                       their sources";
        let found = finding(info, DEBUG_IS_TRUE, "DEBUG", message.to_owned());
        warnings.push(found.mend("for production set DEBUG = False"));
    } else if info.allowed_hosts.is_empty() {
        let message = "ALLOWED_HOSTS is empty and DEBUG is False: every page will be 400 (Bad Request)";
        let mend = "paste ALLOWED_HOSTS = [\"localhost\", \"127.0.0.1\"] with the names of your site added";
        warnings.push(finding(info, "D202", "ALLOWED_HOSTS", message.to_owned()).mend(mend));
    }
    for setting in &info.dead_settings {
        let alias = if setting == "DEFAULT_FILE_STORAGE" { "default" } else { "staticfiles" };
        let message = format!("{setting} is ignored by Django {}", info.version);
        let mend = format!("paste STORAGES = {{\"{alias}\": {{\"BACKEND\": …}}}} instead");
        warnings.push(finding(info, "D109", setting, message).mend(mend));
    }
}

/// The path of `STATIC_URL` or `MEDIA_URL`, with slashes around it; `None` for one that would take the whole site.
fn url_path(url: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => url.strip_prefix("//").map_or(url, |rest| rest.find('/').map_or("", |slash| &rest[slash..])),
    };
    let path = path.trim_matches('/');
    (!path.is_empty()).then(|| format!("/{path}/"))
}

fn static_route(info: &DjangoInfo, findings: &mut Findings) {
    let Some(url) = info.static_url.as_deref() else { return };
    let Some(prefix) = url_path(url) else {
        let message = format!("STATIC_URL is {url:?}: it needs a path of its own for static files to be served");
        let found = finding(info, "D111", "STATIC_URL", message);
        findings.warnings.push(found.mend("such as STATIC_URL = \"static/\""));
        return;
    };
    let collected = info.static_root.as_deref().filter(|root| !is_everything(root) && has_files(root));
    let (roots, manifest, from) = match collected {
        Some(root) if !info.debug && (!info.storage_needs_manifest || info.manifest_exists) => {
            let roots = vec![Root { path: root.into(), prefix: String::new() }];
            (roots, info.storage_needs_manifest, "STATIC_ROOT")
        }
        _ => (finder_roots(info), false, "the finders"),
    };
    if !info.debug && from == "the finders" {
        findings.warnings.push(uncollected(info));
    }
    if !info.other_finders.is_empty() && from == "the finders" {
        let names = info.other_finders.join(", ");
        let message = format!("files of these finders are only served after collecting: {names}");
        findings.warnings.push(finding(info, "D121", "STATICFILES_FINDERS", message).mend("run daemun collect"));
    }
    if roots.is_empty() {
        return;
    }
    let prefix = info.whitenoise_settings.static_prefix.as_deref().and_then(url_path).unwrap_or(prefix);
    let origin = format!("{ORIGIN}{}, {}; files of {from}", named("STATIC_URL", url), place(info, "STATIC_URL"));
    let is_collected = from == "STATIC_ROOT";
    // Who collects into the project itself does not mean its sources and its database.
    let beside = is_collected && info.static_root.as_deref().is_some_and(|root| holds_project(info, root));
    let mut settings = files(roots, manifest, is_collected, beside);
    settings.sources = sources(info);
    whitenoise::adopt(info, &mut settings, !is_collected);
    push(info, findings, prefix, origin, settings);
}

/// Adds the files of a URL; where a proxy strips what stands before it, they are asked for without that.
fn push(info: &DjangoInfo, findings: &mut Findings, prefix: String, origin: String, settings: StaticSettings) {
    let stripped = info.stripped_by_proxy.as_deref().and_then(|name| prefix.strip_prefix(name.trim_end_matches('/')));
    if let Some(rest) = stripped.filter(|rest| rest.starts_with('/') && rest.len() > 1) {
        let origin = format!("{origin}; without FORCE_SCRIPT_NAME");
        findings.routes.push(route(rest.to_owned(), origin, settings.clone()));
    }
    findings.routes.push(route(prefix, origin, settings));
}

/// Why files come from the finders although `DEBUG` is off, and what to do.
fn uncollected(info: &DjangoInfo) -> Finding {
    if info.storage_needs_manifest && !info.manifest_exists {
        let storage = info.storage.as_deref().unwrap_or("the static files storage");
        let (why, mend) = if info.static_root.is_none() && info.manifest_path.is_none() {
            let mend = "paste STATIC_ROOT = BASE_DIR / \"staticfiles\" and run daemun serve --collect";
            (String::from("STATIC_ROOT, where it would lie, is not set"), mend)
        } else {
            let manifest = info.manifest_path.as_deref().unwrap_or("staticfiles.json in STATIC_ROOT");
            let mend =
                "collect the files first: daemun collect, daemun serve --collect, or python manage.py collectstatic";
            (format!("{manifest} is not there"), mend)
        };
        let message = format!(
            "{storage} needs a manifest and {why}: every page that uses {{% static %}} will be 500 (Missing staticfiles \
             manifest entry)"
        );
        return finding(info, "D106", "STORAGES", message).mend(mend);
    }
    let served = "static files are served from the finders, without long caching";
    match &info.static_root {
        None => finding(info, "D103", "STATIC_URL", format!("STATIC_ROOT is not set: {served}"))
            .mend("paste STATIC_ROOT = BASE_DIR / \"staticfiles\" and run daemun serve --collect"),
        Some(root) if is_everything(root) => {
            let message = "STATIC_ROOT is the root of the file system".to_owned();
            let mend = "collect to a folder of its own: STATIC_ROOT = BASE_DIR / \"staticfiles\"";
            finding(info, "D102", "STATIC_ROOT", message).mend(mend)
        }
        Some(root) => {
            let message = format!("nothing has been collected to {root}: {served}");
            finding(info, "D104", "STATIC_ROOT", message).mend("run daemun collect, or daemun serve --collect")
        }
    }
}

fn finder_roots(info: &DjangoInfo) -> Vec<Root> {
    sources(info).into_iter().map(|source| source.root).collect()
}

/// The folders that the finders look through, and who brings each.
fn sources(info: &DjangoInfo) -> Vec<Source> {
    let finders = info.finders.iter().filter(|_| info.staticfiles_installed);
    let source = |finder: &Finder| Source {
        root: Root { path: (&finder.path).into(), prefix: finder.prefix.clone() },
        owner: match &finder.application {
            Some(name) => Owner::Application(name.clone()),
            None => Owner::Setting(format!("STATICFILES_DIRS, {}", place(info, "STATICFILES_DIRS"))),
        },
    };
    finders.map(source).collect()
}

fn media_route(info: &DjangoInfo, findings: &mut Findings) {
    let (Some(url), Some(root)) = (info.media_url.as_deref(), info.media_root.as_deref()) else { return };
    let (Some(prefix), false) = (url_path(url), root.is_empty()) else { return };
    if holds_project(info, root) {
        let message = format!("MEDIA_ROOT is {root}, which holds the project itself: uploads there are not served");
        findings.warnings.push(finding(info, "D118", "MEDIA_ROOT", message).mend("give them a folder of their own"));
        return;
    }
    let origin = format!("{ORIGIN}{}, {}; files of MEDIA_ROOT", named("MEDIA_URL", url), place(info, "MEDIA_URL"));
    let roots = vec![Root { path: root.into(), prefix: String::new() }];
    // What visitors have uploaded: nothing is run, neither here nor, with the site's origin, in a browser.
    let settings = StaticSettings { uploads: true, precompressed: false, ..files(roots, false, true, true) };
    push(info, findings, prefix, origin, settings);
}

/// A setting, and for a URL with a host of its own, such as a CDN's, that only its path is served here.
fn named(setting: &str, url: &str) -> String {
    if url.contains("//") { format!("path of {setting} {url}") } else { setting.to_owned() }
}

fn files(roots: Vec<Root>, manifest: bool, cache: bool, refuse_sources: bool) -> StaticSettings {
    StaticSettings { roots, manifest, refuse_sources, cache, precompressed: true, ..StaticSettings::default() }
}

fn route(prefix: String, origin: String, settings: StaticSettings) -> RouteSettings {
    static_at(PathPattern::Prefix { prefix, suffix: String::new() }, origin, settings)
}

fn static_file(path: String, origin: String, settings: StaticSettings) -> RouteSettings {
    static_at(PathPattern::Exact(path), origin, settings)
}

fn static_at(path: PathPattern, origin: String, settings: StaticSettings) -> RouteSettings {
    let rule = Rule { host: HostPattern::Any, path, conditions: Conditions::default(), origin };
    RouteSettings { rule, filters: FilterSettings::default(), handler: HandlerSettings::Static(settings) }
}

/// Whether a folder is the root of the file system, of which nothing is served.
fn is_everything(folder: &str) -> bool {
    Path::new(folder).parent().is_none()
}

fn holds_project(info: &DjangoInfo, folder: &str) -> bool {
    info.settings_file.as_deref().is_some_and(|file| Path::new(file).starts_with(folder))
}

fn has_files(folder: &str) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> DjangoInfo {
        DjangoInfo {
            version: String::from("5.2"),
            static_url: Some(String::from("/static/")),
            staticfiles_installed: true,
            finders: vec![Finder {
                path: String::from("/django/admin/static"),
                application: Some(String::from("django.contrib.admin")),
                ..Finder::default()
            }],
            settings_file: Some(String::from("/srv/shop/shop/settings.py")),
            lines: [(String::from("STATIC_URL"), 118), (String::from("ALLOWED_HOSTS"), 28)].into(),
            ..DjangoInfo::default()
        }
    }

    fn static_settings(findings: &Findings) -> &StaticSettings {
        match &findings.routes[0].handler {
            HandlerSettings::Static(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_untouched_project_is_served_from_its_finders() {
        let findings = examine(&DjangoInfo { debug: true, ..project() });
        let settings = static_settings(&findings);
        assert_eq!(settings.roots[0].path, Path::new("/django/admin/static"));
        assert!(!settings.cache && !settings.manifest, "sources change while they are served");
        assert_eq!(findings.routes[0].rule.origin, "from Django: STATIC_URL, settings.py:118; files of the finders");
        assert!(findings.warnings[0].message.contains("DEBUG is True"));
    }

    #[test]
    fn of_a_url_with_a_host_the_path_is_served_and_that_is_said() {
        let url = Some(String::from("https://cdn.example.com/assets/"));
        let findings = examine(&DjangoInfo { debug: true, static_url: url, ..project() });
        let rule = &findings.routes[0].rule;
        assert_eq!(rule.path.to_string(), "/assets/*");
        assert!(rule.origin.contains("path of STATIC_URL https://cdn.example.com/assets/"), "{}", rule.origin);
    }

    #[test]
    fn without_debug_an_empty_allowed_hosts_is_foretold_with_the_line_to_paste() {
        let findings = examine(&project());
        assert!(findings.warnings[0].told().starts_with("settings.py:28: ALLOWED_HOSTS is empty"));
        assert!(findings.warnings[0].told().contains("paste ALLOWED_HOSTS = ["));
        assert!(findings.warnings[1].told().contains("STATIC_ROOT is not set"));
        assert_eq!(static_settings(&findings).roots[0].path, Path::new("/django/admin/static"));
    }

    #[test]
    fn a_manifest_storage_without_its_manifest_is_named_as_the_cause_of_the_500() {
        let info = DjangoInfo {
            storage: Some(String::from("django.contrib.staticfiles.storage.ManifestStaticFilesStorage")),
            storage_needs_manifest: true,
            manifest_path: Some(String::from("/srv/shop/staticfiles/staticfiles.json")),
            static_root: Some(String::from("/srv/shop/staticfiles")),
            ..project()
        };
        let warning = examine(&info).warnings.remove(1).told();
        assert!(warning.contains("ManifestStaticFilesStorage needs a manifest"), "{warning}");
        assert!(warning.contains("will be 500") && warning.contains("--collect"), "{warning}");
        let nowhere = DjangoInfo { manifest_path: None, static_root: None, ..info };
        let warning = examine(&nowhere).warnings.remove(1).told();
        assert!(warning.contains("is not set: every page") && warning.contains("paste STATIC_ROOT"), "{warning}");
    }

    #[test]
    fn the_path_of_a_url_is_served_whatever_its_host() {
        for (url, path) in [
            ("/static/", Some("/static/")),
            ("static/", Some("/static/")),
            ("https://cdn.example.com/assets/", Some("/assets/")),
            ("//cdn.example.com/assets/", Some("/assets/")),
            ("https://cdn.example.com", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(url_path(url).as_deref(), path, "{url}");
        }
    }

    #[test]
    fn of_the_root_of_the_file_system_nothing_is_served_and_of_the_projects_folder_no_source() {
        let rooted = |root: &str| DjangoInfo {
            static_root: Some(root.to_owned()),
            allowed_hosts: vec![String::from("a")],
            ..project()
        };
        let findings = examine(&rooted("/"));
        assert_eq!(static_settings(&findings).roots[0].path, Path::new("/django/admin/static"));
        assert_eq!(findings.warnings[0].code, "D102");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("site.css"), "").unwrap();
        let root = folder.path().to_str().unwrap();
        assert!(!static_settings(&examine(&rooted(root))).refuse_sources);
        let inside = DjangoInfo { settings_file: Some(format!("{root}/shop/settings.py")), ..rooted(root) };
        assert!(static_settings(&examine(&inside)).refuse_sources);
    }

    #[test]
    fn projects_have_routes_on_the_hosts_on_which_they_answer() {
        let to = |host: &HostPattern, name: &str| {
            let mut made = route("/".to_owned(), "a.toml:1:1".to_owned(), StaticSettings::default());
            made.rule.host = host.clone();
            made.handler = HandlerSettings::App(name.to_owned());
            made
        };
        let of = |path: &str| {
            let finders = vec![Finder { path: path.to_owned(), ..Finder::default() }];
            examine(&DjangoInfo { debug: true, finders, ..project() }).routes
        };
        let (one, other) = (HostPattern::Exact("one".to_owned()), HostPattern::Below(".two".to_owned()));
        let mut routes = vec![to(&one, "a"), to(&other, "a"), to(&other, "b")];
        assert_eq!(add(&mut routes, "a", &of("/a")), [""; 0]);
        assert_eq!(add(&mut routes, "a", &of("/a")), [""; 0], "its own");
        let told = add(&mut routes, "b", &of("/b"));
        assert!(told[0].starts_with("b: /static/* is another project's already (from Django: STATIC_URL"), "{told:?}");
        let found = |route: &RouteSettings| (route.rule.host.clone(), route.rule.path.to_string());
        let found: Vec<_> = routes[3..].iter().map(found).collect();
        assert_eq!(found, [(one, "/static/*".to_owned()), (other, "/static/*".to_owned())]);
    }

    #[test]
    fn what_a_proxy_strips_is_served_without_it_too() {
        for (name, paths) in [
            ("/shop", &["/static/*", "/shop/static/*"][..]),
            ("/shop/", &["/static/*", "/shop/static/*"]),
            ("/sho", &["/shop/static/*"]),
            ("/shop/static", &["/shop/static/*"]),
        ] {
            let static_url = Some(String::from("/shop/static/"));
            let info = DjangoInfo { debug: true, static_url, stripped_by_proxy: Some(name.to_owned()), ..project() };
            let found: Vec<String> = examine(&info).routes.iter().map(|route| route.rule.path.to_string()).collect();
            assert_eq!(found, paths, "{name}");
        }
    }

    #[test]
    fn a_media_folder_that_holds_the_project_is_not_served() {
        let media = |root: &str| DjangoInfo {
            media_url: Some(String::from("/media/")),
            media_root: Some(root.to_owned()),
            ..project()
        };
        assert_eq!(examine(&media("/srv/media")).routes.len(), 2);
        let findings = examine(&media("/srv/shop"));
        assert_eq!(findings.routes.len(), 1);
        assert!(findings.warnings.iter().any(|warning| warning.message.contains("holds the project itself")));
    }
}
