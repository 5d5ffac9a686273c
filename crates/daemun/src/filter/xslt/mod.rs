//! `xslt`: XML becomes what its stylesheet makes of it, on its way out.
//!
//! 1. The request goes to the handler. Where its answer turns out to be XML and cannot be used (304, a part, compressed),
//!    it is asked once more without the fields that made it so; the path is remembered, and next time asked so at once.
//! 2. Which stylesheet: the configuration's, or the one that the document itself names ([`prolog`]), on the same site.
//! 3. The result is at hand where the same document met the same state of the stylesheet's files before ([`results`]);
//!    the state is looked at anew from time to time ([`sheets`]).
//! 4. Otherwise the document is gathered and a [transformer](crate::transformer) has it. Requests for the same thing wait
//!    for that one.
//! 5. The answer has a type, a tag and a length of its own. What could not be transformed is told in the log, and is a
//!    500 or passes as it is.

mod prolog;
mod results;
mod settings;
mod sheets;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{
    BodyError, BodyStream, CanonicalPath, Fields, HeadEdit, Method, Request, RequestBody, RequestHead, Response,
    ResponseBody, Status,
};
use crate::telemetry::ErrorLogger;
use crate::transformer::{Client, Failure, Job, Order};
use results::{Key, Results, Transformation};
pub use settings::XsltSettings;
use sheets::{Sheet, Sheets};

/// Paths that are known to be XML. Where there are more, all are learnt anew.
const PATHS: usize = 4096;

/// A handler whose XML is transformed.
pub struct Transforming {
    settings: XsltSettings,
    sheets: Arc<Sheets>,
    results: Results,
    client: Arc<Client>,
    errors: ErrorLogger,
    known: Mutex<HashSet<Box<[u8]>>>,
    next: Arc<dyn Handler>,
}

/// What of a request is needed when its answer is there.
struct Asked {
    head: RequestHead,
    /// The path of the document as its client sees it.
    path: String,
}

impl Transforming {
    /// Puts the filter before `next`. `root` is the open folder of the settings' root.
    pub fn wrap(
        settings: XsltSettings,
        root: OwnedFd,
        client: &Arc<Client>,
        errors: &ErrorLogger,
        next: Arc<dyn Handler>,
    ) -> Arc<dyn Handler> {
        let sheets = Arc::new(Sheets::new(root, settings.prefix.clone(), settings.max_size));
        let (client, errors) = (Arc::clone(client), errors.clone());
        Arc::new(Self { settings, sheets, results: Results::default(), client, errors, known: Mutex::default(), next })
    }

    async fn run(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let is_asking = matches!(request.head.method(), Method::Get | Method::Head);
        if !is_asking || !matches!(request.body, RequestBody::Empty) {
            return self.next.handle(request).await;
        }
        let own = request.head.clone();
        let path = [&request.notes.script_name, request.path.as_bytes()].concat();
        let asked = Asked { head: own.clone(), path: String::from_utf8_lossy(&path).into_owned() };
        let is_known = self.known().contains(&path[..]);
        if is_known {
            request.head = plain(&own);
        }
        let again = (!is_known).then(|| copy(&request));
        let response = match self.next.handle(request).await? {
            Outcome::Response(response) => response,
            Outcome::Decline(mut declined) => {
                declined.head = own;
                return Ok(Outcome::Decline(declined));
            }
            other @ Outcome::Redirect(_) => return Ok(other),
        };
        let response = match again {
            Some(again) if must_ask_again(&response, own.method()) => {
                match self.next.handle(Request { head: plain(&own), ..again }).await? {
                    Outcome::Response(response) => response,
                    Outcome::Decline(_) | Outcome::Redirect(_) => {
                        return Err(HandlerError::new(
                            Status::INTERNAL_SERVER_ERROR,
                            Fault::Server,
                            "xslt: the handler answered, and did not when it was asked again",
                        ));
                    }
                }
            }
            _ => response,
        };
        if response.status != Status::OK || !is_xml(&response) || response.fields.get("content-encoding").is_some() {
            return Ok(Outcome::Response(response));
        }
        self.learn(path);
        self.answer(response, &asked).await.map(Outcome::Response)
    }

    fn learn(&self, path: Vec<u8>) {
        let mut known = self.known();
        if known.len() >= PATHS {
            known.clear();
        }
        known.insert(path.into());
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<Box<[u8]>>> {
        // A panic while the lock was held left plain data behind: it can be used.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer in the place of this one.
    async fn answer(&self, mut response: Response, asked: &Asked) -> Result<Response, HandlerError> {
        let fixed = self.settings.stylesheet.as_deref();
        // The same bytes in memory, or the same file: nothing of it needs to be looked at.
        let quick = results::quick(&response.body, &asked.path);
        if let Some(done) = quick.as_ref().and_then(|quick| self.results.recall(quick))
            && self.sheets.is_current(&done.sheet).await
        {
            return self.dressed(response, &done, asked);
        }
        let body = std::mem::replace(&mut response.body, ResponseBody::Empty);
        let document = match gathered(body, self.settings.max_size).await {
            Ok(document) => document,
            Err(Ungathered::Failed(error)) => {
                let message = format!("xslt: {}: {error}", asked.path);
                return Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, message));
            }
            Err(Ungathered::TooLong(body)) => {
                let message = format!("it is longer than {} bytes", self.settings.max_size);
                response.body = body;
                self.tell_of_pass(&message, asked);
                return self.failed(response, &Failure::Wrong(message), asked, None);
            }
        };
        let named = prolog::stylesheet(&document);
        let path = match (fixed, &named) {
            (Some(path), _) => path.to_owned(),
            (None, Some(named)) => match on_same_site(&named.href, asked) {
                Some(path) => path,
                None => return Ok(response.with_body(ResponseBody::Full(document))),
            },
            (None, None) => return Ok(response.with_body(ResponseBody::Full(document))),
        };
        let sheet = self.sheets.current(&path).await;
        let key = Key::new(sheet.number, &asked.path, &document);
        let done = self.transformed(&sheet, key, &document, asked).await;
        if let (Some(quick), Ok(done)) = (quick, &done) {
            self.results.remember(quick, document.clone(), done);
        }
        match done {
            Ok(done) if done.result.is_ok() => self.dressed(response, &done, asked),
            Ok(done) => {
                response.body = ResponseBody::Full(document);
                self.dressed(response, &done, asked)
            }
            Err(failure) => {
                response.body = ResponseBody::Full(document);
                self.tell_of_pass(&failure, asked);
                self.failed(response, &failure, asked, Some(&sheet))
            }
        }
    }

    /// The result for this document, made now where it was not before.
    async fn transformed(
        &self,
        sheet: &Arc<Sheet>,
        key: Key,
        document: &Bytes,
        asked: &Asked,
    ) -> Result<Arc<Transformation>, Failure> {
        let turn = self.results.turn(key);
        let _mine = turn.lock().await;
        if let Some(done) = self.results.find(key) {
            return Ok(done);
        }
        let job = Job {
            sheet: sheet.number,
            path: sheet.path.clone(),
            document: asked.path.clone(),
            parameters: self.settings.parameters.clone(),
            milliseconds: self.settings.timeout.as_millis() as u64,
            most: self.settings.max_size,
        };
        let order = Order { job, document: prolog::without_stylesheets(document) };
        let (sheets, reading) = (Arc::clone(&self.sheets), Arc::clone(sheet));
        let read = move |path: String| {
            let (sheets, sheet) = (Arc::clone(&sheets), Arc::clone(&reading));
            async move { sheets.read(&sheet, path).await }
        };
        let result = match self.client.transform(order, read).await {
            Err(busy @ Failure::Busy(_)) => return Err(busy),
            result => result,
        };
        match &result {
            Ok((made, _)) if !made.messages.is_empty() => {
                for message in &made.messages {
                    self.errors.info(format_args!("xslt: {} by {}: {message}", asked.path, sheet.path));
                }
            }
            Err(failure) => {
                // Where the request fails, its first line is told with the request.
                let told = usize::from(!self.settings.passes_on_error);
                for line in failure.to_string().lines().skip(told) {
                    self.errors.error(format_args!("xslt: {} by {}: {line}", asked.path, sheet.path));
                }
            }
            Ok(_) => {}
        }
        Ok(self.results.keep(key, sheet, result))
    }

    /// The result with fields of its own; 304 where the client has it already.
    fn dressed(&self, mut response: Response, done: &Transformation, asked: &Asked) -> Result<Response, HandlerError> {
        let page = match &done.result {
            Ok(page) => page,
            Err(failure) => return self.failed(response, failure, asked, Some(&done.sheet)),
        };
        // What these say is true of the document, and not of what was made of it.
        for name in ["Last-Modified", "Accept-Ranges", "Content-MD5", "Content-Digest", "Repr-Digest", "Digest"] {
            response.fields.remove(name);
        }
        response.fields.set("Content-Type", page.content_type.clone());
        response.fields.set("ETag", page.tag.clone());
        if has_tag(&asked.head, &page.tag) {
            response.status = Status::NOT_MODIFIED;
            response.body = ResponseBody::Empty;
        } else if asked.head.method() == Method::Head {
            response.body = ResponseBody::LengthOnly(page.body.len() as u64);
        } else {
            response.body = ResponseBody::Full(page.body.clone());
        }
        Ok(response)
    }

    /// Tells why a document passes that nobody tried to transform.
    fn tell_of_pass(&self, why: &dyn std::fmt::Display, asked: &Asked) {
        if self.settings.passes_on_error {
            self.errors.warning(format_args!("xslt: {} passes as it is: {why}", asked.path));
        }
    }

    /// The untransformed document, or an error.
    fn failed(
        &self,
        mut response: Response,
        failure: &Failure,
        asked: &Asked,
        sheet: Option<&Arc<Sheet>>,
    ) -> Result<Response, HandlerError> {
        if self.settings.passes_on_error {
            if asked.head.method() == Method::Head
                && let ResponseBody::Full(bytes) = &response.body
            {
                response.body = ResponseBody::LengthOnly(bytes.len() as u64);
            }
            return Ok(response);
        }
        let by = sheet.map_or_else(String::new, |sheet| format!(" by {}", sheet.path));
        let why = failure.to_string();
        let message = format!("xslt: {}{by}: {}", asked.path, why.lines().next().unwrap_or_default());
        let status =
            if let Failure::Busy(_) = failure { Status::SERVICE_UNAVAILABLE } else { Status::INTERNAL_SERVER_ERROR };
        let error = HandlerError::new(status, Fault::Server, message);
        Err(HandlerError { retry_after: matches!(failure, Failure::Busy(_)).then_some(1), ..error })
    }
}

impl Handler for Transforming {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// The request for a whole, plain document.
fn plain(head: &RequestHead) -> RequestHead {
    const FIELDS: [&str; 6] =
        ["Accept-Encoding", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Range"];
    let path = head.raw_path().to_vec();
    let query = head.query().map(<[u8]>::to_vec);
    let head = if head.method() == Method::Head {
        head.redirected(Method::Get, &path, query.as_deref())
    } else {
        head.clone()
    };
    head.edited(&HeadEdit { remove: &FIELDS, ..HeadEdit::default() })
}

/// The same request once more; it has no body.
fn copy(request: &Request) -> Request {
    Request {
        head: request.head.clone(),
        path: request.path.clone(),
        prefix_length: request.prefix_length,
        body: RequestBody::Empty,
        endpoint: Arc::clone(&request.endpoint),
        received: request.received,
        timeout: request.timeout,
        interim: request.interim.clone(),
        notes: request.notes.clone(),
    }
}

/// Whether another answer stands in the place of this one of a handler, if all is well.
pub fn is_transformed(response: &Response, method: Method) -> bool {
    let is_asking = matches!(method, Method::Get | Method::Head);
    is_asking && (must_ask_again(response, method) || (response.status == Status::OK && is_xml(response)))
}

/// Whether the answer is, or stands for, XML that is not there as a whole.
fn must_ask_again(response: &Response, method: Method) -> bool {
    match response.status {
        // Without a type nobody knows what it stands for.
        Status::NOT_MODIFIED => is_xml(response) || response.fields.get("content-type").is_none(),
        Status::PARTIAL_CONTENT => is_xml(response),
        Status::OK => is_xml(response) && (method == Method::Head || response.fields.get("content-encoding").is_some()),
        _ => false,
    }
}

/// XML but what is made to be shown as it is, and stylesheets themselves.
fn is_xml(response: &Response) -> bool {
    let value = response.fields.get("content-type").unwrap_or_default();
    let bare = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match &bare[..] {
        b"text/xml" | b"application/xml" => true,
        b"image/svg+xml" | b"application/xhtml+xml" | b"application/xslt+xml" => false,
        other => other.ends_with(b"+xml"),
    }
}

/// Whether the client has what this tag stands for (RFC 9110, section 13.1.2).
fn has_tag(head: &RequestHead, tag: &Bytes) -> bool {
    head.field_values("if-none-match").flat_map(|value| value.split(|&byte| byte == b',')).any(|one| {
        let one = one.trim_ascii();
        one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == &tag[..]
    })
}

/// The path that `href` in this document leads to, where that is on the same site.
fn on_same_site(href: &str, asked: &Asked) -> Option<String> {
    let href = href.split(['#', '?']).next().filter(|href| !href.is_empty())?;
    let rest = ["http:", "https:"].iter().find_map(|scheme| href.strip_prefix(scheme)).unwrap_or(href);
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, _) = rest.split_once('/')?;
            if !authority.eq_ignore_ascii_case(asked.head.authority()) {
                return None;
            }
            rest[authority.len()..].to_owned()
        }
        None if rest.len() != href.len() => return None,
        None if rest.starts_with('/') => rest.to_owned(),
        // Another scheme, such as `data:`.
        None if rest.split('/').next().is_some_and(|first| first.contains(':')) => return None,
        None => {
            let raw = String::from_utf8_lossy(asked.head.raw_path()).into_owned();
            let folder = raw.rfind('/').map_or("/", |at| &raw[..=at]);
            format!("{folder}{rest}")
        }
    };
    let path = CanonicalPath::parse(&Bytes::from(path)).ok()?;
    String::from_utf8(path.as_bytes().to_vec()).ok()
}

/// Why a document is not at hand.
enum Ungathered {
    TooLong(ResponseBody),
    Failed(BodyError),
}

/// All of a body, if it is not longer than this.
async fn gathered(body: ResponseBody, most: u64) -> Result<Bytes, Ungathered> {
    match body.at_hand() {
        ResponseBody::Empty | ResponseBody::LengthOnly(_) => Ok(Bytes::new()),
        ResponseBody::Full(bytes) if bytes.len() as u64 <= most => Ok(bytes),
        ResponseBody::File(file) if file.length <= most => {
            let read = tokio::task::spawn_blocking(move || file.read()).await;
            let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            read.map(Bytes::from).map_err(|error| Ungathered::Failed(BodyError::Failed(error.to_string())))
        }
        ResponseBody::Stream(mut stream) if stream.length().is_none_or(|length| length <= most) => {
            let mut whole = BytesMut::new();
            loop {
                match std::future::poll_fn(|context| stream.as_mut().poll_chunk(context)).await {
                    None => return Ok(whole.freeze()),
                    Some(Err(error)) => return Err(Ungathered::Failed(error)),
                    Some(Ok(chunk)) => whole.extend_from_slice(&chunk),
                }
                if whole.len() as u64 > most {
                    let begun = Begun { first: Some(whole.freeze()), rest: stream };
                    return Err(Ungathered::TooLong(ResponseBody::Stream(Box::pin(begun))));
                }
            }
        }
        other => Err(Ungathered::TooLong(other)),
    }
}

/// A stream whose beginning was taken already.
struct Begun {
    first: Option<Bytes>,
    rest: std::pin::Pin<Box<dyn BodyStream>>,
}

impl BodyStream for Begun {
    fn poll_chunk(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Bytes, BodyError>>> {
        match self.first.take() {
            Some(first) => std::task::Poll::Ready(Some(Ok(first))),
            None => self.rest.as_mut().poll_chunk(context),
        }
    }

    fn may_trail(&self) -> bool {
        self.rest.may_trail()
    }

    fn take_trailers(mut self: std::pin::Pin<&mut Self>) -> Option<Fields> {
        self.rest.as_mut().take_trailers()
    }
}
