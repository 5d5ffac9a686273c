//! Certificates that an authority is asked for, as they are written and as they are asked for on the command line.

use std::net::SocketAddr;

use super::{faults, surroundings, tree, valid};
use crate::config::{ConfigError, Configuration, DevelopmentWishes, Wish, Wishes, develop, gather};
use crate::listener::Address;
use crate::tls::{AcmeSettings, ChallengeWay, Source};

const SITE: &str =
    "[[route]]\nrespond = {}\n[server]\nlisten = [\"0.0.0.0:80\", \"https://0.0.0.0:443\"]\nstate = \"s\"\n";

#[test]
fn what_no_authority_could_give_is_a_fault() {
    let first_lines = SITE.lines().count();
    for (table, line, want) in [
        (
            "hosts = [\"*.a.example\"]\nacme = true",
            3,
            "8: `*.a.example`: authorities give wildcards for a proof by DNS only: write every name, or give `cert` and `key`",
        ),
        (
            "hosts = [\"intranet\"]\nacme = {}",
            3,
            "8: `intranet` is no name of the public DNS: no public authority gives a certificate for it",
        ),
        ("acme = true", 2, "8: `acme` needs `hosts`: the names that the certificate is to be for"),
        (
            "hosts = [\"a.example\"]\nacme = { directory = \"http://a.example\" }",
            3,
            "22: `directory` in `acme`: expected `staging` or an address such as \"https://authority.example/directory\", found \"http://a.example\"",
        ),
        (
            "hosts = [\"a.example\"]\nacme = { challenge = \"dns-01\" }",
            3,
            "22: `challenge` in `acme`: `dns-01` is not supported: `http-01` or `tls-alpn-01`; for wildcards give `cert` and `key`",
        ),
        (
            "hosts = [\"a.example\"]\nacme = { email = \"me\" }",
            3,
            "18: `email` in `acme`: expected an address such as \"me@example.com\", found \"me\"",
        ),
        (
            "hosts = [\"a.example\"]\nacme = { mail = \"a@b.c\" }",
            3,
            "10: unknown key `mail` in `acme`; did you mean `email`?",
        ),
        (
            "hosts = [\"a.example\"]\nacme = { ca_file = \"none.pem\" }",
            3,
            "8: `ca_file` /T/none.pem: No such file or directory (os error 2)",
        ),
        (
            "hosts = [\"a.example\"]\nacme = true\ncert = \"c.pem\"",
            4,
            "8: `cert` in [[tls]]: `acme` brings certificate and key: give the one or the other",
        ),
    ] {
        let told = faults(&format!("{SITE}[[tls]]\n{table}"));
        assert_eq!(told, format!("daemun.toml:{}:{want}", first_lines + line), "{table}");
    }
    let plain = SITE.replace(", \"https://0.0.0.0:443\"", "");
    let told = faults(&format!("{plain}[[tls]]\nhosts = [\"a.example\"]\nacme = {{ challenge = \"tls-alpn-01\" }}"));
    assert!(told.contains("`tls-alpn-01` needs an https listener that port 443 leads to"), "{told}");
}

#[test]
fn a_table_with_acme_names_its_file_after_the_authority_and_the_first_name() {
    let text =
        "[[tls]]\nhosts = [\"a.example\", \"b.example\"]\nacme = { directory = \"staging\", challenge = \"http-01\" }";
    let configuration = valid(&format!("{SITE}{text}"));
    let tls = &configuration.tls[0];
    let Source::Authority(acme) = &tls.source else { unreachable!("{tls:?}") };
    assert_eq!((&*acme.directory, acme.challenge), (AcmeSettings::STAGING, Some(ChallengeWay::Http)));
    assert!(tls.cert.ends_with("s/acme/acme-staging-v02.api.letsencrypt.org_directory/a.example.pem"), "{tls:?}");
    assert_eq!(tls.cert, tls.key);
}

fn asked(wishes: &Wishes, variables: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
    let folder = tree(&[("index.html", "")]);
    gather(&Wishes { targets: vec![".".to_owned()], ..wishes.clone() }, &surroundings(&folder, variables))
}

fn ports(configuration: &Configuration) -> Vec<(u16, bool)> {
    let port = |address: &Address| match address {
        Address::Tcp(address) => SocketAddr::port(address),
        _ => 0,
    };
    configuration.server.listeners.iter().map(|one| (port(&one.address), one.tls)).collect()
}

#[test]
fn a_name_alone_makes_a_site_of_the_public_web() {
    let wishes = Wishes {
        domains: vec![Wish::new("Shop.example", "--domain"), Wish::new("b.example", "--domain")],
        acme_directory: Some(Wish::new("staging", "--acme-directory")),
        ..Wishes::default()
    };
    let configuration = asked(&wishes, &[("STATE_DIRECTORY", "/state:/other")]).unwrap();
    assert_eq!(ports(&configuration), [(80, false), (443, true)]);
    assert!(configuration.server.redirect_https);
    let hosts: Vec<_> = configuration.tls.iter().map(|tls| tls.hosts.join(" ")).collect();
    assert_eq!(hosts, ["shop.example", "b.example"]);
    assert!(configuration.tls[0].cert.starts_with("/state/acme"), "{:?}", configuration.tls[0]);
    // Where somebody has said where to listen, there.
    let elsewhere = Wishes { listen: vec![Wish::new("https://127.0.0.1:8443", "--listen")], ..wishes };
    assert_eq!(ports(&asked(&elsewhere, &[("HOME", "/home/me")]).unwrap()), [(8443, true)]);
    let alone = Wishes { acme_email: Some(Wish::new("me@a.example", "--acme-email")), ..Wishes::default() };
    let told = asked(&alone, &[]).unwrap_err().to_string();
    assert!(told.contains("--acme-email: no authority is asked for a certificate: give --domain too"), "{told}");
}

#[test]
fn who_develops_asks_no_authority() {
    let wishes = Wishes {
        https: true,
        domains: vec![Wish::new("a.example", "--domain")],
        listen: vec![Wish::new("8000", "--listen")],
        ..Wishes::default()
    };
    let variables = [("STATE_DIRECTORY", "/state")];
    let mut configuration = asked(&wishes, &variables).unwrap();
    let folder = tree(&[]);
    develop(&mut configuration, &DevelopmentWishes::default(), &surroundings(&folder, &variables));
    assert_eq!(ports(&configuration), [(8000, true)]);
    assert_eq!(configuration.tls[0].source, Source::SelfMade);
    assert_eq!(configuration.tls[0].cert, std::path::Path::new("/state/self-made/a.example.pem"));
}
