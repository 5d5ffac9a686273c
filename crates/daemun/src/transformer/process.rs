//! The transformer's process: one job at a time, from one socket.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use super::MEMORY;
use super::message::{HEADER, Job, Kind, Made, behead, decode, encode, head};
use crate::process;
use crate::sys::{self, Stylesheet, Transformed, Xslt};

/// Stylesheets that are kept compiled; the one that was not used for longest goes first.
const SHEETS: usize = 64;

/// Lines of `xsl:message` and warnings that are passed on.
const LINES: usize = 20;

/// Runs the transformer on the socket that was inherited as `descriptor`.
pub fn run(descriptor: i32) -> ExitCode {
    match start(descriptor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(format_args!("transformer: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells on standard output why this program cannot transform, where it cannot.
pub fn check() -> ExitCode {
    match Xslt::load() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(descriptor: i32) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    // Before anything else: no process of the same user may look into this one.
    sys::forbid_inspection().map_err(text)?;
    sys::default_signals();
    let _ = rustix::thread::set_name(c"daemun-xslt");
    let socket = UnixStream::from(sys::inherited(descriptor).map_err(text)?);
    socket.set_nonblocking(false).map_err(text)?;
    let xslt = Xslt::load()?;
    sys::confine(MEMORY).map_err(|error| format!("it cannot be shut in: {error}"))?;
    Transformer { xslt, front: Rc::new(RefCell::new(Front { socket, failure: None })), sheets: Vec::new() }
        .serve()
        .map_err(text)
}

struct Transformer {
    xslt: Xslt,
    front: Rc<RefCell<Front>>,
    /// By number, the one that was used last at the end.
    sheets: Vec<(u64, Stylesheet)>,
}

impl Transformer {
    /// The end of the socket is the end of the front, and of us.
    fn serve(mut self) -> io::Result<()> {
        loop {
            let said = read(&mut self.front.borrow_mut().socket)?;
            let Some((Kind::Job, bytes)) = said else { return Ok(()) };
            let (job, document) = behead::<Job>(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            sys::end_after(Duration::from_millis(job.milliseconds.max(1)));
            let made = self.transform(&job, document);
            if let Some(error) = self.front.borrow_mut().failure.take() {
                // What came of it says nothing of stylesheet and document.
                return Err(error);
            }
            let wire = match made {
                Ok(made) if made.bytes.len() as u64 > job.most => {
                    encode(Kind::Failed, &[format!("the result is longer than {} bytes", job.most).as_bytes()])
                }
                Ok(made) => {
                    let told = Made { content_type: content_type(&made), messages: lines(&made.messages) };
                    encode(Kind::Made, &[&head(&told), &made.bytes])
                }
                Err(error) => encode(Kind::Failed, &[lines(&error).join("\n").as_bytes()]),
            };
            sys::end_after(Duration::ZERO);
            self.front.borrow_mut().socket.write_all(&wire)?;
        }
    }

    fn transform(&mut self, job: &Job, document: &[u8]) -> Result<Transformed, String> {
        let front = Rc::clone(&self.front);
        self.xslt.set_loader(Some(Box::new(move |path| front.borrow_mut().want(path))));
        let known = self.sheets.iter().position(|(number, _)| *number == job.sheet);
        let entry = if let Some(at) = known {
            self.sheets.remove(at)
        } else {
            let bytes = self.front.borrow_mut().want(&job.path);
            let bytes = bytes.ok_or_else(|| format!("{}: it cannot be read", job.path))?;
            (job.sheet, self.xslt.compile(&job.path, &bytes)?)
        };
        let made = self.xslt.transform(&entry.1, document, &job.document, &job.parameters);
        self.sheets.push(entry);
        if self.sheets.len() > SHEETS {
            let (_, oldest) = self.sheets.remove(0);
            self.xslt.free(oldest);
        }
        made
    }
}

/// Whom we work for.
struct Front {
    socket: UnixStream,
    /// Why it could not be asked for a file, which the library takes for a file that is not there.
    failure: Option<io::Error>,
}

impl Front {
    /// Asks for a file.
    fn want(&mut self, path: &str) -> Option<Vec<u8>> {
        let asked = self.socket.write_all(&encode(Kind::Want, &[path.as_bytes()]));
        match asked.and_then(|()| read(&mut self.socket)) {
            Ok(Some((Kind::File, bytes))) => Some(bytes),
            Ok(Some((Kind::NoFile, _))) => None,
            Ok(_) => {
                self.failure = Some(io::ErrorKind::UnexpectedEof.into());
                None
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }
}

fn read(socket: &mut UnixStream) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut header = [0; HEADER];
    match socket.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (length, kind) = decode(header).ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes)?;
    Ok(Some((kind, bytes)))
}

/// What `xsl:output` says, else what its method means (XSLT 1.0, section 16).
fn content_type(made: &Transformed) -> String {
    let by_method = match made.method.as_str() {
        "html" | "xhtml" => "text/html",
        "text" => "text/plain",
        _ => "text/xml",
    };
    let is_fit = |text: &&String| !text.is_empty() && text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    let media_type = made.media_type.as_ref().filter(is_fit).map_or(by_method, String::as_str);
    let encoding = made.encoding.as_ref().filter(is_fit).map_or("UTF-8", String::as_str);
    if media_type.contains("charset") { media_type.to_owned() } else { format!("{media_type}; charset={encoding}") }
}

/// The library's messages as lines that begin with file and line. It says `compilation error: file /a.xsl line 4 element
/// foo`, and what is wrong in the next line; the parser says `/a.xsl:4: parser error : what`, then shows the place.
fn lines(text: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut place: Option<String> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && line.trim() != "^") {
        let found = line.split_once(": file ").and_then(|(_, rest)| {
            let (file, rest) = rest.split_once(" line ")?;
            let number = rest.split(' ').next()?;
            Some(format!("{file}:{number}"))
        });
        if found.is_some() {
            place = found;
        } else if let Some(place) = place.take() {
            told.push(format!("{place}: {}", line.trim()));
        } else {
            told.push(line.trim().to_owned());
        }
    }
    told.truncate(LINES);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_file_and_line() {
        let text = "compilation error: file /a.xsl line 4 element foo\nxsltStylePreCompute : unknown xsl:foo\n";
        assert_eq!(lines(text), ["/a.xsl:4: xsltStylePreCompute : unknown xsl:foo"]);
        let text = "/f.xml:3: parser error : Opening and ending tag mismatch: b line 3 and a\n</a>\n   ^\n";
        assert_eq!(lines(text)[0], "/f.xml:3: parser error : Opening and ending tag mismatch: b line 3 and a");
        assert_eq!(lines(&"said\n".repeat(100)).len(), LINES);
    }

    #[test]
    fn the_type_is_what_the_stylesheet_says_or_its_method_means() {
        let made = |method: &str, media_type: Option<&str>, encoding: Option<&str>| {
            content_type(&Transformed {
                method: method.to_owned(),
                media_type: media_type.map(str::to_owned),
                encoding: encoding.map(str::to_owned),
                ..Transformed::default()
            })
        };
        assert_eq!(made("html", None, None), "text/html; charset=UTF-8");
        assert_eq!(made("xml", None, Some("ISO-8859-1")), "text/xml; charset=ISO-8859-1");
        assert_eq!(made("text", Some("text/css"), None), "text/css; charset=UTF-8");
        assert_eq!(made("html", Some("text/html\r\nX: y"), None), "text/html; charset=UTF-8");
    }
}
