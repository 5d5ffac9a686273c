use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn serve(words: &[&str]) -> ServeArguments {
    let words = ["daemun", "serve"].iter().chain(words);
    let Command::Serve(arguments) = parse(words.copied()).map_err(|refusal| refusal.to_string()).unwrap().command
    else {
        unreachable!("`serve` was asked for")
    };
    *arguments
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Environment { variables, directory: "/srv".into(), executable: None, cores: 2 }
}

#[test]
fn the_command_line_is_in_order() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}

#[test]
fn options_go_before_variables() {
    let variables = [
        ("DAEMUN_LISTEN", "1, unix:/x"),
        ("DAEMUN_PORT", "5"),
        ("DAEMUN_TIMEOUT", "9s"),
        ("DAEMUN_WORKERS", "7"),
        ("DAEMUN_CONFIG", "d.toml"),
        ("DAEMUN_COLLECT", "1"),
        ("DAEMUN_THREADS", ""),
    ];
    let told = |wishes: &[config::Wish]| -> Vec<String> {
        wishes.iter().map(|wish| format!("{} {}", wish.origin, wish.value)).collect()
    };
    let wishes = serve(&[]).wishes(&environment(&variables));
    assert_eq!(told(&wishes.listen), ["DAEMUN_LISTEN 1", "DAEMUN_LISTEN unix:/x", "DAEMUN_PORT 5"]);
    assert_eq!(told(wishes.timeout.as_slice()), ["DAEMUN_TIMEOUT 9s"]);
    assert_eq!(told(wishes.processes.as_slice()), ["DAEMUN_WORKERS 7"]);
    assert_eq!(told(wishes.config.as_slice()), ["DAEMUN_CONFIG d.toml"]);
    assert!(wishes.collect && wishes.threads.is_none());

    let words =
        ["-p", "3", "--listen=4", "--timeout", "1s", "--workers", "auto", "shop:app", "--env", "A=1", "--env", "B=2"];
    let wishes = serve(&words).wishes(&environment(&variables));
    assert_eq!(told(&wishes.listen), ["--listen 4", "--port 3"]);
    assert_eq!(told(wishes.timeout.as_slice()), ["--timeout 1s"]);
    assert_eq!(told(wishes.processes.as_slice()), ["--processes auto"]);
    assert_eq!(told(&wishes.env), ["--env A=1", "--env B=2"]);
    assert_eq!((wishes.config, wishes.targets), (None, vec!["shop:app".to_owned()]));
}

#[test]
fn a_wrong_word_gets_the_right_one() {
    for (words, want) in [
        (&["runserver"][..], "there is no command `runserver`; use `daemun dev`"),
        (&["collectstatic"], "there is no command `collectstatic`; use `daemun collect`"),
        (&["import"], "`daemun import` is not supported by this version"),
        (&["shop:app"], "a command is missing before `shop:app`; use `daemun serve shop:app`"),
        (&["serve", "--bind", "0.0.0.0:80"], "there is no option `--bind`; use `--listen`"),
        (&["serve", "--bind=0.0.0.0:80"], "there is no option `--bind`; use `--listen`"),
        (&["serve", "-b", "0.0.0.0:80"], "there is no option `-b`; use `--listen`"),
        (&["serve", "--chdir", "/srv"], "there is no option `--chdir`; use `--directory`"),
        (
            &["serve", "--reload"],
            "there is no option `--reload`: `daemun dev` reloads by itself, `daemun serve` when it is told to (HUP)",
        ),
        (&["serve", "--preload"], "`--preload` is not supported by this version"),
        (&["serve", "--settings=a.settings"], "there is no option `--settings`; use `--env DJANGO_SETTINGS_MODULE=…`"),
    ] {
        let refusal = parse(["daemun"].iter().chain(words).copied()).unwrap_err();
        let want = format!("error: {want}\n\nFor more information, try 'daemun serve --help'.");
        assert_eq!((refusal.to_string(), refusal.exit_code()), (want, 2), "{words:?}");
    }
    for (words, part) in [
        (&["serve", "--thread", "1"][..], "a similar argument exists: '--threads'"),
        (&["sreve"], "a similar subcommand exists: 'serve'"),
        (&["serve", "--port"], "a value is required for '--port <PORT>'"),
        (&[], "Usage: daemun <COMMAND>"),
    ] {
        let refusal = parse(["daemun"].iter().chain(words).copied()).unwrap_err();
        assert!(refusal.to_string().contains(part), "{refusal}");
        assert_eq!(refusal.exit_code(), 2);
    }
    for word in ["--help", "--version"] {
        assert_eq!(parse(["daemun", word]).unwrap_err().exit_code(), 0);
    }
}

#[test]
fn configure_finds_reads_and_warns() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join(".venv/bin/python");
    fs::create_dir_all(python.parent().unwrap()).unwrap();
    fs::write(&python, "").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("app.py"), "app = Flask(__name__)\n").unwrap();
    let mut surroundings =
        environment(&[("DAEMUN_TIMEUOT", "3s"), ("DAEMUN_INTERNAL_ROLE", "x"), ("DAEMUN_THREADS", "9")]);
    surroundings.directory = folder.path().to_path_buf();
    let configuration = configure(&serve(&["--port", "0"]), &surroundings).unwrap();
    let app = &configuration.apps[0];
    assert_eq!((app.mounts[0].callable.as_str(), app.threads, app.processes), ("app:app", 9, 2));
    assert_eq!((&app.python, app.python_reason.as_str()), (&python, ".venv beside the target"));
    assert_eq!(configuration.server.listeners[0].address.to_string(), "127.0.0.1:0");
    assert_eq!(configuration.target, format!("app:app ({})", folder.path().join("app.py").display()));
    let want = "the environment variable DAEMUN_TIMEUOT does nothing; did you mean DAEMUN_TIMEOUT?";
    assert_eq!(configuration.warnings, [want]);
}
