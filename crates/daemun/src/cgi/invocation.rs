//! What a program is started with: arguments, environment, working folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::settings::{CgiSettings, PROGRAM_PATH};
use crate::gateway::{Script, decode, write_script};
use crate::http::{Method, Request, TrustedProxies};
use crate::launcher::Start;

/// Bytes that the environment of a browser's request takes.
const USUAL_ENVIRONMENT: usize = 2048;

/// A program with its place in the URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invocation {
    /// The script; where one program answers everything, that program.
    pub script: PathBuf,
    /// What is executed with which first arguments, if that is not the script itself.
    pub interpreter: Vec<String>,
    /// Whether the script's path follows the interpreter's own arguments.
    pub is_script: bool,
    /// The part of the path that leads to it (`SCRIPT_NAME`).
    pub name: Vec<u8>,
    /// What follows (`PATH_INFO`).
    pub path_info: Vec<u8>,
    /// Whether a warm interpreter runs it.
    pub reuse: bool,
}

impl Invocation {
    /// Whether it writes its whole response itself (RFC 3875, section 5).
    pub(super) fn is_nph(&self) -> bool {
        self.is_script && self.script.file_name().is_some_and(|name| name.as_bytes().starts_with(b"nph-"))
    }

    /// What is executed.
    pub(super) fn program(&self) -> &Path {
        self.interpreter.first().map_or(&*self.script, Path::new)
    }

    /// The working folder: the script's own (RFC 3875, section 7.2).
    fn directory<'a>(&'a self, settings: &'a CgiSettings) -> &'a Path {
        match self.script.parent() {
            Some(parent) if self.is_script => parent,
            _ => &settings.root,
        }
    }

    /// The arguments, the program's own name first.
    pub(super) fn arguments(&self, request: &Request) -> Vec<Vec<u8>> {
        let mut arguments: Vec<Vec<u8>> = self.interpreter.iter().map(|text| text.clone().into_bytes()).collect();
        if self.is_script {
            arguments.push(self.script.as_os_str().as_bytes().to_vec());
        }
        // An interpreter would take the words for its own (CVE-2012-1823); a warm one is ours, and knows better.
        if self.is_script && (self.interpreter.is_empty() || self.reuse) {
            arguments.extend(indexed_words(request).unwrap_or_default());
        }
        arguments
    }

    /// The environment as names and values, each ended by a NUL. The body has `length` bytes.
    pub(super) fn environment(
        &self,
        settings: &CgiSettings,
        request: &Request,
        length: u64,
        trusted: &TrustedProxies,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_ENVIRONMENT);
        let mut variable = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            out.extend_from_slice(value);
            out.push(0);
        };
        for (name, value) in &settings.env {
            variable(name, value.as_bytes());
        }
        if !settings.env.iter().any(|(name, _)| name == "PATH") {
            variable("PATH", PROGRAM_PATH.as_bytes());
        }
        let documents = settings.document_root.as_ref().unwrap_or(&settings.root).as_os_str().as_bytes();
        variable("DOCUMENT_ROOT", documents);
        variable("SCRIPT_FILENAME", self.script.as_os_str().as_bytes());
        // php-cgi refuses to run without it: nothing else tells it that a server started it.
        variable("REDIRECT_STATUS", b"200");
        if !self.path_info.is_empty() {
            variable("PATH_TRANSLATED", &[documents, &self.path_info[..]].concat());
        }
        let script = Script { name: &self.name, path_info: &self.path_info, authorization: settings.authorization };
        write_script(&mut out, request, length, trusted, &script);
        if settings.env.is_empty() { out } else { without_repeats(&out, &settings.env) }
    }

    /// The start for the launcher.
    pub(super) fn start(
        &self,
        settings: &CgiSettings,
        request: &Request,
        length: u64,
        trusted: &TrustedProxies,
    ) -> Start {
        let program = self.program().as_os_str().as_bytes();
        let directory = self.directory(settings).as_os_str().as_bytes();
        let mut start = Start::new(settings.profile_number, program, directory);
        start.reuse = self.reuse;
        for argument in self.arguments(request) {
            start.argument(&argument);
        }
        start.environment(&self.environment(settings, request, length, trusted));
        start
    }
}

/// What `daemun explain` shows of a request to this program: the command, its folder, each variable.
pub fn describe(
    invocation: &Invocation,
    settings: &CgiSettings,
    request: &Request,
    trusted: &TrustedProxies,
) -> Vec<String> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let command: Vec<String> = invocation.arguments(request).iter().map(|argument| text(argument)).collect();
    let mut lines = vec![
        format!("command: {}", command.join(" ")),
        format!("folder: {}", invocation.directory(settings).display()),
    ];
    let length = request.body.length().unwrap_or_default();
    let environment = invocation.environment(settings, request, length, trusted);
    let mut parts = environment.split(|&byte| byte == 0);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        lines.push(format!("{}={}", text(name), text(value)));
    }
    lines
}

/// What the route says stands for what the request says: a name stands there once, or programs would disagree on it.
fn without_repeats(pairs: &[u8], env: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pairs.len());
    let mut parts = pairs.split(|&byte| byte == 0);
    let mut index = 0;
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let own = index < env.len();
        index += 1;
        if own || !env.iter().any(|(other, _)| other.as_bytes() == name) {
            out.extend_from_slice(name);
            out.push(0);
            out.extend_from_slice(value);
            out.push(0);
        }
    }
    out
}

/// The words of an indexed query (RFC 3875, section 4.4): GET or HEAD, and no `=` in it. What is active in a shell is
/// escaped (section 7.2). None where a word begins with a dash, which programs would take for an option, and where one
/// cannot be decoded.
fn indexed_words(request: &Request) -> Option<Vec<Vec<u8>>> {
    let query = request.head.query().filter(|query| !query.is_empty() && !query.contains(&b'='))?;
    if !matches!(request.head.method(), Method::Get | Method::Head) {
        return None;
    }
    let words: Option<Vec<Vec<u8>>> = query.split(|&byte| byte == b'+').map(decode).collect();
    let words = words?;
    if words.iter().any(|word| word.starts_with(b"-") || word.contains(&0)) {
        return None;
    }
    Some(words.iter().map(|word| escape(word)).collect())
}

fn escape(word: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(word.len());
    for &byte in word {
        if b"&;`'\"|*?~<>^()[]{}$\\\n\xff".contains(&byte) {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

/// The interpreter for a file of this name.
pub(super) fn interpreter_for<'a>(settings: &'a CgiSettings, script: &Path) -> Option<&'a [String]> {
    let name = script.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let fits = |ending: &str| name.len() > ending.len() && name.ends_with(ending.as_bytes());
    // The longest ending says most.
    let found = settings.interpreters.iter().filter(|(ending, _)| fits(ending));
    found.max_by_key(|(ending, _)| ending.len()).map(|(_, command)| &command[..])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::gateway::path_info;
    use crate::http::{CanonicalPath, Endpoint, HeadBuilder, RequestBody, Scheme, Version};

    fn request(method: &str, target: &str) -> Request {
        let text =
            Bytes::from(format!("{method} {target} HTTP/1.1|Proxy|evil|X_A|under|X-A|dash|Authorization|Basic x"));
        let whole = &text[method.len() + 1..method.len() + 1 + target.len()];
        let (path, query) = match whole.iter().position(|&byte| byte == b'?') {
            Some(mark) => (&whole[..mark], Some(&whole[mark + 1..])),
            None => (whole, None),
        };
        let mut builder = HeadBuilder::new(text.clone(), Version::Http11, &text[..method.len()], whole);
        builder.path(path, query);
        let parts: Vec<&[u8]> = text.split(|&byte| byte == b'|').skip(1).collect();
        for pair in parts.chunks(2) {
            builder.field(pair[0], pair[1]);
        }
        let head = builder.finish();
        Request {
            path: CanonicalPath::parse(&head.raw_path_bytes()).unwrap(),
            head,
            prefix_length: 0,
            body: RequestBody::Empty,
            endpoint: Arc::new(Endpoint::new(None, None, Scheme::Http)),
            received: Instant::now(),
            timeout: None,
            interim: crate::http::Interim::none(),
            notes: crate::http::Notes::default(),
        }
    }

    fn invocation() -> Invocation {
        Invocation {
            script: PathBuf::from("/srv/cgi/sub/env.cgi"),
            interpreter: Vec::new(),
            is_script: true,
            name: b"/cgi-bin/sub/env.cgi".to_vec(),
            path_info: b"/a b".to_vec(),
            reuse: false,
        }
    }

    fn settings() -> CgiSettings {
        CgiSettings { root: PathBuf::from("/srv/cgi"), ..CgiSettings::default() }
    }

    fn environment(settings: &CgiSettings, request: &Request) -> Vec<String> {
        let lines = describe(&invocation(), settings, request, &TrustedProxies::default());
        lines.into_iter().skip(2).collect()
    }

    #[test]
    fn the_words_of_an_indexed_query_are_arguments_unless_one_could_be_an_option() {
        let words = |method: &str, target: &str| -> Vec<String> {
            let arguments = invocation().arguments(&request(method, target));
            arguments.iter().skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        assert_eq!(words("GET", "/x?a+b%20c+d%3De"), ["a", "b c", "d=e"]);
        assert_eq!(words("HEAD", "/x?one"), ["one"]);
        assert_eq!(words("GET", "/x?a%3Bb+$(c)"), ["a\\;b", "\\$\\(c\\)"]);
        for (method, target) in [
            ("POST", "/x?a"),
            ("GET", "/x?a=b"),
            ("GET", "/x?"),
            ("GET", "/x"),
            ("GET", "/x?-s"),
            ("GET", "/x?a+%2Ds"),
            ("GET", "/x?%zz"),
            ("GET", "/x?a%00"),
        ] {
            assert!(words(method, target).is_empty(), "{method} {target}");
        }
        let mapped = Invocation { interpreter: vec!["/usr/bin/php-cgi".to_owned()], ..invocation() };
        assert_eq!(mapped.arguments(&request("GET", "/x?a")).len(), 2, "program and script only");
    }

    #[test]
    fn the_environment_has_what_is_configured_and_nothing_that_could_mislead() {
        let request = request("GET", "/cgi-bin/sub/env.cgi/a%20b?q=%31");
        let found = environment(&settings(), &request);
        for line in [
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "SCRIPT_NAME=/cgi-bin/sub/env.cgi",
            "PATH_INFO=/a b",
            "PATH_TRANSLATED=/srv/cgi/a b",
            "SCRIPT_FILENAME=/srv/cgi/sub/env.cgi",
            "QUERY_STRING=q=%31",
            "GATEWAY_INTERFACE=CGI/1.1",
            "REDIRECT_STATUS=200",
            "HTTP_X_A=dash",
        ] {
            assert!(found.iter().any(|other| other == line), "{line} in {found:?}");
        }
        let names: Vec<&str> = found.iter().filter_map(|line| line.split('=').next()).collect();
        for name in ["HTTP_PROXY", "HTTP_AUTHORIZATION", "wsgi.url_scheme", "HOME", "CONTENT_LENGTH"] {
            assert!(!names.contains(&name), "{name}");
        }
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "no name twice: {names:?}");
    }

    #[test]
    fn what_the_route_says_stands_for_what_the_request_says() {
        let env = [("PATH", "/opt/bin"), ("SERVER_NAME", "mine"), ("EXTRA", "")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let settings = CgiSettings { env, authorization: true, ..settings() };
        let found = environment(&settings, &request("GET", "/"));
        let of = |name: &str| found.iter().filter(|line| line.starts_with(name)).cloned().collect::<Vec<_>>();
        assert_eq!(of("PATH="), ["PATH=/opt/bin"]);
        assert_eq!(of("SERVER_NAME="), ["SERVER_NAME=mine"]);
        assert_eq!(of("EXTRA="), ["EXTRA="]);
        assert_eq!(of("HTTP_AUTHORIZATION="), ["HTTP_AUTHORIZATION=Basic x"]);
    }

    #[test]
    fn an_encoded_slash_in_path_info_is_decoded_but_never_leads_upwards() {
        let info = |target: &str| {
            let request = request("GET", target);
            let canonical = request.path.as_bytes().get(8..).unwrap_or_default().to_vec();
            path_info(&request, &canonical, 1).map(|info| String::from_utf8_lossy(&info).into_owned())
        };
        assert_eq!(info("/e.cgi/a%20b/%2e%2e/c%2Fd").as_deref(), Some("/c/d"));
        assert_eq!(info("/e.cgi/a/%2e%2e/c%2Fd").as_deref(), Some("/c/d"));
        assert_eq!(info("/e.cgi/%252Fx%2Fy/").as_deref(), Some("/%2Fx/y/"));
        assert_eq!(info("/e.cgi/..%2F..%2Fetc/passwd"), None);
        assert_eq!(info("/e.cgi/x%2F..").as_deref(), None);
    }

    #[test]
    fn the_longest_ending_chooses_the_interpreter() {
        let command = |name: &str| vec![name.to_owned()];
        let interpreters = vec![(".php".to_owned(), command("php")), (".inc.php".to_owned(), command("inc"))];
        let settings = CgiSettings { interpreters, ..settings() };
        let of = |name: &str| interpreter_for(&settings, Path::new(name)).map(|command| command[0].clone());
        assert_eq!(of("/a/x.php").as_deref(), Some("php"));
        assert_eq!(of("/a/x.inc.php").as_deref(), Some("inc"));
        assert_eq!((of("/a/.php"), of("/a/x.pl")), (None, None));
    }
}
