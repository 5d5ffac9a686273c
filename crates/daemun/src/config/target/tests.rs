use std::fs;

use tempfile::TempDir;

use super::*;

fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// What is found in a tree: `kind folder: callables`, or the fault; the folder written as `/T`.
fn found(files: &[(&str, &str)], targets: &[&str]) -> String {
    let folder = tree(files);
    let looking = Looking { base: folder.path(), directory: None, configurations: true };
    let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
    let told = match looking.find(&targets) {
        Ok(Target::Configuration(path)) => format!("configuration {}", path.display()),
        Ok(Target::Files(path)) => format!("files {}", path.display()),
        Ok(Target::Application(found)) => {
            let kind = if found.django { "django" } else { "wsgi" };
            let names: Vec<String> = found.mounts.iter().map(described).collect();
            format!("{kind} {}: {}", found.directory.display(), names.join(" "))
        }
        Err(fault) => fault.to_string(),
    };
    told.replace(&folder.path().display().to_string(), "/T")
}

const MANAGE: &str =
    "import os\n\ndef main():\n    os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"mysite.settings\")\n";
const WSGI: &str = "application = get_wsgi_application()\n";

#[test]
fn without_a_target_the_first_of_the_list_is_served() {
    let all = [
        ("daemun.toml", ""),
        ("manage.py", MANAGE),
        ("mysite/wsgi.py", WSGI),
        ("wsgi.py", "application = 1\n"),
        ("app.py", "app = 1\n"),
        ("main.py", "app = 1\n"),
        ("index.html", ""),
    ];
    for (skip, want) in [
        (0, "configuration /T/daemun.toml"),
        (1, "django /T: mysite.wsgi:application"),
        (3, "wsgi /T: wsgi:application"),
        (4, "wsgi /T: app:app"),
        (5, "wsgi /T: main:app"),
        (6, "files /T"),
    ] {
        assert_eq!(found(&all[skip..], &[]), want, "{skip}");
    }
    let want = "/T: nothing to serve was found; looked for daemun.toml, manage.py (also one folder down, if only one), \
                wsgi.py, app.py, main.py, asgi.py and index.html";
    assert_eq!(found(&[("notes.txt", "")], &[]), want);
}

#[test]
fn a_django_project_is_found_with_its_wsgi_module() {
    let cookiecutter = MANAGE.replace("mysite.settings", "config.settings.local");
    let wagtail = MANAGE.replace("mysite.settings", "mysite.settings.dev");
    let black = "os.environ.setdefault(\n    'DJANGO_SETTINGS_MODULE',\n    'mysite.settings',\n)\n";
    let assigned =
        "# DJANGO_SETTINGS_MODULE, \"no.settings\"\nos.environ[\"DJANGO_SETTINGS_MODULE\"] = \"mysite.settings\"\n";
    let flat = MANAGE.replace("mysite.settings", "settings");
    let said = "DEBUG = False\nWSGI_APPLICATION = 'web.entry.application'\n";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("manage.py", MANAGE), ("mysite/__init__.py", ""), ("mysite/wsgi.py", WSGI)],
            "django /T: mysite.wsgi:application",
        ),
        (
            &[("manage.py", MANAGE), ("mysite/wsgi.py", WSGI), ("other/wsgi.py", WSGI)],
            "django /T: mysite.wsgi:application",
        ),
        (
            &[("manage.py", &cookiecutter), ("config/settings/local.py", ""), ("config/wsgi.py", WSGI)],
            "django /T: config.wsgi:application",
        ),
        (
            &[("manage.py", &wagtail), ("mysite/settings/dev.py", ""), ("mysite/wsgi.py", WSGI)],
            "django /T: mysite.wsgi:application",
        ),
        (&[("manage.py", black), ("mysite/wsgi.py", WSGI)], "django /T: mysite.wsgi:application"),
        (&[("manage.py", assigned), ("mysite/wsgi.py", WSGI)], "django /T: mysite.wsgi:application"),
        (&[("manage.py", &flat), ("settings.py", ""), ("wsgi.py", WSGI)], "django /T: wsgi:application"),
        (
            &[("manage.py", MANAGE), ("mysite/settings.py", said), ("web/entry.py", WSGI)],
            "django /T: web.entry:application",
        ),
        (&[("manage.py", "print(1)\n"), ("deploy/wsgi.py", WSGI)], "django /T: deploy.wsgi:application"),
        (&[("src/manage.py", MANAGE), ("src/mysite/wsgi.py", WSGI)], "django /T/src: mysite.wsgi:application"),
        (&[("manage.py", MANAGE), ("mysite/wsgi.py", "from x import app\n")], "django /T: mysite.wsgi:app"),
        (
            &[("src/manage.py", MANAGE), ("src/mysite/wsgi.py", WSGI), (".old/manage.py", ""), ("venv/manage.py", "")],
            "django /T/src: mysite.wsgi:application",
        ),
        (
            &[("manage.py", MANAGE)],
            "/T: /T/manage.py is there, but no wsgi.py: looked beside the settings (mysite.settings) and one folder below; \
             name the callable, such as `mysite.wsgi:application`",
        ),
        (
            &[("manage.py", ""), ("a/wsgi.py", WSGI), ("b/wsgi.py", WSGI)],
            "/T: /T/manage.py does not say which wsgi.py is meant; name one: `a.wsgi:application` or `b.wsgi:application`",
        ),
        (
            &[("manage.py", MANAGE), ("mysite/wsgi.py", "")],
            "/T: /T/mysite/wsgi.py has no WSGI callable at its top level; looked for `application`, `app`, `create_app()` and \
             `make_app()`",
        ),
    ];
    for (files, want) in cases {
        assert_eq!(found(files, &[]), *want);
    }
    let two = [("a/manage.py", MANAGE), ("b/manage.py", MANAGE)];
    assert!(found(&two, &[]).ends_with("; there are several Django projects below, name one: `/T/a` or `/T/b`"));
    assert!(found(&two, &["."]).ends_with("; there are several Django projects below, name one: `/T/a` or `/T/b`"));
}

#[test]
fn a_target_may_be_a_file_a_folder_or_a_callable() {
    let files = [
        ("conf/site.toml", ""),
        ("shop/manage.py", MANAGE),
        ("shop/mysite/wsgi.py", WSGI),
        ("flask/app.py", "app = Flask(__name__)\n"),
        ("pkg/__init__.py", ""),
        ("pkg/sub/__init__.py", ""),
        ("pkg/sub/web.py", "def create_app():\n    pass\n"),
        ("files/a.txt", ""),
        ("page/index.html", ""),
        ("empty.py", ""),
        ("api.py", "app = FastAPI()\n"),
        ("asgi/asgi.py", ""),
        ("my-app.py", "app = 1\n"),
    ];
    for (target, want) in [
        ("conf/site.toml", "configuration /T/conf/site.toml"),
        ("shop", "django /T/shop: mysite.wsgi:application"),
        ("shop/", "django /T/shop: mysite.wsgi:application"),
        ("shop/manage.py", "django /T/shop: mysite.wsgi:application"),
        ("shop/mysite/wsgi.py", "wsgi /T/shop/mysite: wsgi:application"),
        ("flask", "wsgi /T/flask: app:app"),
        ("pkg/sub/web.py", "wsgi /T: pkg.sub.web:create_app()"),
        ("pkg/sub/web.py:other", "wsgi /T: pkg.sub.web:other"),
        ("shop.wsgi:application", "wsgi /T: shop.wsgi:application"),
        ("shop:make('x:y', debug=True)", "wsgi /T: shop:make('x:y', debug=True)"),
        ("pkg/sub/web.py:make('x:y')", "wsgi /T: pkg.sub.web:make('x:y')"),
        ("shop:make('x'", "`shop:make('x'`: expected `module:callable` or `module:factory()`, found \"shop:make('x'\""),
        ("shop:make()", "wsgi /T: shop:make()"),
        ("files", "files /T/files"),
        ("page", "files /T/page"),
        ("page/index.html", "files /T/page"),
        (
            "empty.py",
            "`empty.py`: /T/empty.py has no WSGI callable at its top level; looked for `application`, `app`, `create_app()` and \
             `make_app()`",
        ),
        ("api.py", "`api.py`: `app` in /T/api.py is an ASGI application: ASGI is not supported yet"),
        ("asgi", "/T/asgi: /T/asgi/asgi.py is there, but no WSGI module: ASGI is not supported yet"),
        (
            "a.asgi:application",
            "`a.asgi:application`: ASGI is not supported yet; name the WSGI callable instead of \"a.asgi:application\"",
        ),
        ("my-app.py", "`my-app.py`: /T/my-app.py cannot be imported: `my-app` is not a module name"),
        (
            "shop.wsgi",
            "`shop.wsgi`: there is no such file or folder; a module needs its callable: `shop.wsgi:application`",
        ),
        (
            "nothing",
            "`nothing`: there is no such file or folder; expected a daemun.toml, a project folder, a Python file or module:callable",
        ),
        ("files/a.txt", "`files/a.txt`: expected a daemun.toml, a project folder, a Python file or module:callable"),
    ] {
        assert_eq!(found(&files, &[target]), want, "{target}");
    }
}

#[test]
fn several_callables_are_mounted_in_one_process() {
    let files = [
        ("a/wsgi.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a.settings')"),
        ("b/wsgi.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'b.settings')"),
        ("c.py", ""),
    ];
    for (targets, want) in [
        (&["/=a.wsgi:application", "/c=c:app"][..], "wsgi /T: a.wsgi:application /c=c:app"),
        (&["/c/=c:app"], "wsgi /T: /c=c:app"),
        (&["/=c:app", "c:app"], "`c:app`: with several targets each needs a mount, such as `/wiki=wiki:app`"),
        (&["/c=c:app", "/c/=c:other"], "`/c/=c:other`: something is mounted at `/c/` already"),
        (&["/=c"], "`/=c`: expected `module:callable` or `module:factory()`, such as `c:application`, found \"c\""),
        (
            &["/a=a.wsgi:application", "/b=b.wsgi:application"],
            "the targets: `a.wsgi:application` and `b.wsgi:application` are two Django projects, and settings are global to a \
             process; give each an [app] of its own",
        ),
    ] {
        assert_eq!(found(&files, targets), want, "{targets:?}");
    }
}
