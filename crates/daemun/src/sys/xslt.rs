//! libxslt, found when it is needed: parsing, compiling, transforming, and nothing that reads or writes by itself.
//!
//! It is loaded by name (`libxslt.so.1`), so that neither building nor running daemun needs it where no route has
//! `xslt`. What a stylesheet loads, entities too, comes from the caller; those of documents come from nowhere. Two facts are read
//! out of its structures, which have no functions for them: how a transformation ended, and what `xsl:output` says. Their
//! places have been the same in every libxslt 1.1; a [trial](Xslt::load) finds out before anything depends on it.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use libc::{FILE, c_char, c_int, c_uchar, c_void};

type Pointer = *mut c_void;
type Text = *const c_uchar;
type DocumentLoader = unsafe extern "C" fn(Text, Pointer, c_int, Pointer, c_int) -> Pointer;
type EntityLoader = unsafe extern "C" fn(*const c_char, *const c_char, Pointer) -> Pointer;

/// Reads a file that a stylesheet names: its path begins with `/`.
pub type Loader = Box<dyn FnMut(&str) -> Option<Vec<u8>>>;

/// `NOENT`, `DTDATTR`, `NONET` and `NOCDATA` of libxml2's `xmlParserOption`: entities and attributes that the document's own
/// DTD declares are put in place, and the bounds on depth and expansion stay. A DTD outside is asked for and not given.
const PARSE: c_int = 1 << 1 | 1 << 3 | 1 << 11 | 1 << 14;

/// What errors and messages of one job may say.
const MESSAGES: usize = 64 * 1024;

/// `XSLT_STATE_OK`.
const STATE_OK: c_int = 0;

/// `XML_HTML_DOCUMENT_NODE`.
const HTML_DOCUMENT: c_int = 13;

/// Places in libxslt's and libxml2's structures, in bytes.
mod place {
    /// `xsltTransformContext.state`.
    pub(super) const STATE: usize = 168;
    /// `xsltStylesheet.method`.
    pub(super) const METHOD: usize = 192;
    /// `xsltStylesheet.encoding`.
    pub(super) const ENCODING: usize = 216;
    /// `xsltStylesheet.mediaType`.
    pub(super) const MEDIA_TYPE: usize = 272;
    /// `xsltStylesheet.errors`.
    pub(super) const ERRORS: usize = 292;
    /// `xmlDoc.type`.
    pub(super) const DOCUMENT_TYPE: usize = 8;
    /// `xmlParserInput.filename`.
    pub(super) const FILE_NAME: usize = 8;
}

macro_rules! functions {
    ($($library:ident { $($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)* })*) => {
        /// The functions that are used, by their own names.
        #[expect(non_snake_case, reason = "the names of libxslt")]
        #[derive(Clone, Copy)]
        struct Functions { $($($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*)* }

        impl Functions {
            fn find(libraries: &Libraries) -> Result<Self, String> {
                Ok(Self { $($($name: {
                    let found = symbol(libraries.$library, concat!(stringify!($name), "\0"))?;
                    // SAFETY: the function of that name has this signature in every libxml2 2.x and libxslt 1.1.
                    unsafe { std::mem::transmute::<Pointer, unsafe extern "C" fn($($argument),*) $(-> $result)?>(found) }
                },)*)* })
            }
        }
    };
}

functions! {
    xml {
        xmlInitParser: fn();
        xmlReadMemory: fn(*const c_char, c_int, *const c_char, *const c_char, c_int) -> Pointer;
        xmlFreeDoc: fn(Pointer);
        xmlSetExternalEntityLoader: fn(EntityLoader);
        xmlSetGenericErrorFunc: fn(Pointer, Pointer);
        xmlParserInputBufferCreateMem: fn(*const c_char, c_int, c_int) -> Pointer;
        xmlNewIOInputStream: fn(Pointer, Pointer, c_int) -> Pointer;
        xmlStrdup: fn(Text) -> *mut c_uchar;
        xmlFindCharEncodingHandler: fn(*const c_char) -> Pointer;
    }
    xslt {
        xsltInit: fn();
        xsltParseStylesheetDoc: fn(Pointer) -> Pointer;
        xsltFreeStylesheet: fn(Pointer);
        xsltNextImport: fn(Pointer) -> Pointer;
        xsltNewTransformContext: fn(Pointer, Pointer) -> Pointer;
        xsltFreeTransformContext: fn(Pointer);
        xsltQuoteUserParams: fn(Pointer, *const *const c_char) -> c_int;
        xsltApplyStylesheetUser: fn(Pointer, Pointer, Pointer, Pointer, Pointer, Pointer) -> Pointer;
        xsltSaveResultToString: fn(*mut *mut c_uchar, *mut c_int, Pointer, Pointer) -> c_int;
        xsltSetLoaderFunc: fn(DocumentLoader);
        xsltSetGenericErrorFunc: fn(Pointer, Pointer);
        xsltNewSecurityPrefs: fn() -> Pointer;
        xsltSetSecurityPrefs: fn(Pointer, c_int, Pointer) -> c_int;
        xsltSetDefaultSecurityPrefs: fn(Pointer);
        xsltSetCtxtSecurityPrefs: fn(Pointer, Pointer) -> c_int;
    }
    exslt {
        exsltRegisterAll: fn();
    }
}

struct Libraries {
    xml: Pointer,
    xslt: Pointer,
    exslt: Pointer,
}

/// What the callbacks need; they get no argument of ours.
struct Callbacks {
    functions: Functions,
    default: DocumentLoader,
    loader: Option<Loader>,
    /// The one name that may be opened now: a stylesheet or `document()`, and never an entity of a document.
    expected: Option<CString>,
    /// A stylesheet is being compiled: it may keep entities in files of its own, as those for DocBook do.
    compiles: bool,
}

thread_local! {
    static CALLBACKS: RefCell<Option<Callbacks>> = const { RefCell::new(None) };
}

/// libxslt, ready to use by this thread alone.
pub struct Xslt {
    functions: Functions,
    security: Pointer,
    messages: *mut FILE,
    text: Box<[u8]>,
}

/// A stylesheet that was compiled. It lives as long as the process unless it is [freed](Xslt::free).
pub struct Stylesheet(Pointer);

/// What a transformation made.
#[derive(Debug, Default)]
pub struct Transformed {
    /// The result in its encoding.
    pub bytes: Vec<u8>,
    /// `xml`, `html`, `text` or another method, as `xsl:output` says or as the result is.
    pub method: String,
    /// What `xsl:output` says.
    pub media_type: Option<String>,
    /// What `xsl:output` says.
    pub encoding: Option<String>,
    /// What `xsl:message` and warnings said.
    pub messages: String,
}

impl Xslt {
    /// Loads the libraries, shuts what is to be shut, and tries out a stylesheet. A library whose structures were others
    /// would fail here, or end this process.
    pub fn load() -> Result<Self, String> {
        let libraries = Libraries {
            // In this order: the others need it.
            xml: open(&[c"libxml2.so.2", c"libxml2.so.16"])?,
            xslt: open(&[c"libxslt.so.1"])?,
            exslt: open(&[c"libexslt.so.0"])?,
        };
        let functions = Functions::find(&libraries)?;
        let default = symbol(libraries.xslt, "xsltDocDefaultLoader\0")?.cast::<DocumentLoader>();
        let forbid = symbol(libraries.xslt, "xsltSecurityForbid\0")?;
        let mut text = vec![0; MESSAGES].into_boxed_slice();
        // SAFETY: initialises the libraries once, from the only thread that uses them. `default` is the address of a
        // variable that holds a function. The box behind `messages` is never moved nor freed before it.
        let (default, security, messages) = unsafe {
            (functions.xmlInitParser)();
            (functions.xsltInit)();
            (functions.exsltRegisterAll)();
            let messages = libc::fmemopen(text.as_mut_ptr().cast(), MESSAGES, c"w".as_ptr());
            (functions.xmlSetGenericErrorFunc)(messages.cast(), null_mut());
            (functions.xsltSetGenericErrorFunc)(messages.cast(), null_mut());
            let security = (functions.xsltNewSecurityPrefs)();
            // Writing files, making folders, reading from and writing to the network.
            for forbidden in 2..=5 {
                (functions.xsltSetSecurityPrefs)(security, forbidden, forbid);
            }
            (functions.xsltSetDefaultSecurityPrefs)(security);
            let default = *default;
            (functions.xmlSetExternalEntityLoader)(load_entity);
            (functions.xsltSetLoaderFunc)(load_document);
            (default, security, messages)
        };
        if security.is_null() || messages.is_null() {
            return Err("no memory for libxslt".to_owned());
        }
        CALLBACKS.set(Some(Callbacks { functions, default, loader: None, expected: None, compiles: false }));
        let mut xslt = Self { functions, security, messages, text };
        xslt.know_encodings();
        xslt.try_out()?;
        Ok(xslt)
    }

    /// Converters are modules of the C library's: later there is no file to load them from. One that is held stays.
    fn know_encodings(&self) {
        const NAMES: [&CStr; 16] = [
            c"ISO-8859-2",
            c"ISO-8859-5",
            c"ISO-8859-7",
            c"ISO-8859-9",
            c"ISO-8859-15",
            c"windows-1250",
            c"windows-1251",
            c"windows-1252",
            c"windows-1254",
            c"KOI8-R",
            c"Shift_JIS",
            c"EUC-JP",
            c"EUC-KR",
            c"GB18030",
            c"GBK",
            c"Big5",
        ];
        for name in NAMES {
            // SAFETY: a text that ends with zero. The handler is never freed.
            unsafe { (self.functions.xmlFindCharEncodingHandler)(name.as_ptr()) };
        }
    }

    /// Whether the facts are where we read them.
    fn try_out(&mut self) -> Result<(), String> {
        let sheet = |rest: &str| {
            format!("<x:stylesheet version='1.0' xmlns:x='http://www.w3.org/1999/XSL/Transform'>{rest}</x:stylesheet>")
        };
        let good = "<x:output method='text' media-type='text/x-trial' encoding='ISO-8859-1'/>\
                    <x:template match='/'>\u{e9}</x:template>";
        let bad = "<x:template match='/'><x:message terminate='yes'>no</x:message></x:template>";
        let strange = |what: &str| format!("this libxslt is not like any that is known: {what}");
        let good = self.compile("/trial", sheet(good).as_bytes())?;
        let made = self.transform(&good, b"<a/>", "/trial", &[])?;
        self.free(good);
        if (&made.bytes[..], made.method.as_str(), made.media_type.as_deref(), made.encoding.as_deref())
            != (&b"\xe9"[..], "text", Some("text/x-trial"), Some("ISO-8859-1"))
        {
            return Err(strange("`xsl:output`"));
        }
        let bad = self.compile("/trial", sheet(bad).as_bytes())?;
        let made = self.transform(&bad, b"<a/>", "/trial", &[]);
        self.free(bad);
        if made.is_ok() { Err(strange("the state of a transformation")) } else { Ok(()) }
    }

    /// Reads what stylesheets name from now on.
    pub fn set_loader(&mut self, loader: Option<Loader>) {
        CALLBACKS.with_borrow_mut(|callbacks| {
            if let Some(callbacks) = callbacks {
                callbacks.loader = loader;
                callbacks.expected = None;
            }
        });
    }

    /// Compiles a stylesheet that has this path.
    pub fn compile(&mut self, path: &str, bytes: &[u8]) -> Result<Stylesheet, String> {
        self.forget_messages();
        compiles(true);
        let document = self.parse(path, bytes)?;
        // SAFETY: a document that was just parsed; the stylesheet owns it, but where there is none.
        let style = unsafe {
            let style = (self.functions.xsltParseStylesheetDoc)(document);
            if style.is_null() {
                (self.functions.xmlFreeDoc)(document);
                return Err(self.told("it is not a stylesheet"));
            }
            style
        };
        // SAFETY: within the structure, as was tried out.
        if unsafe { read::<c_int>(style, place::ERRORS) } != 0 {
            self.free(Stylesheet(style));
            return Err(self.told("it has errors"));
        }
        Ok(Stylesheet(style))
    }

    /// Lets go of a stylesheet.
    #[expect(clippy::needless_pass_by_value, reason = "whoever has it has it no more")]
    pub fn free(&mut self, sheet: Stylesheet) {
        // SAFETY: nobody else has it.
        unsafe { (self.functions.xsltFreeStylesheet)(sheet.0) };
    }

    /// Transforms a document that has this path. Parameters are texts.
    pub fn transform(
        &mut self,
        sheet: &Stylesheet,
        document: &[u8],
        path: &str,
        parameters: &[(String, String)],
    ) -> Result<Transformed, String> {
        self.forget_messages();
        compiles(false);
        let texts: Vec<CString> = parameters
            .iter()
            .flat_map(|(name, value)| [name, value])
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|_| "a parameter holds a zero".to_owned())?;
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).chain([null()]).collect();
        let document = self.parse(path, document)?;
        let f = self.functions;
        // SAFETY: stylesheet and document are alive; each thing that is made here is freed here, once.
        unsafe {
            let context = (f.xsltNewTransformContext)(sheet.0, document);
            if context.is_null() {
                (f.xmlFreeDoc)(document);
                return Err("no memory for a transformation".to_owned());
            }
            (f.xsltSetCtxtSecurityPrefs)(self.security, context);
            let quoted = (f.xsltQuoteUserParams)(context, pointers.as_ptr());
            let result = (f.xsltApplyStylesheetUser)(sheet.0, document, null_mut(), null_mut(), null_mut(), context);
            let state = read::<c_int>(context, place::STATE);
            let made = if result.is_null() || state != STATE_OK || quoted < 0 {
                Err(self.told("the transformation failed"))
            } else {
                self.save(result, sheet)
            };
            if !result.is_null() {
                (f.xmlFreeDoc)(result);
            }
            (f.xsltFreeTransformContext)(context);
            (f.xmlFreeDoc)(document);
            made
        }
    }

    fn parse(&mut self, path: &str, bytes: &[u8]) -> Result<Pointer, String> {
        let url = CString::new(path).map_err(|_| "a path holds a zero".to_owned())?;
        let length = c_int::try_from(bytes.len()).map_err(|_| "it is longer than 2 GiB".to_owned())?;
        // SAFETY: as many bytes as are told; they are not kept.
        let document =
            unsafe { (self.functions.xmlReadMemory)(bytes.as_ptr().cast(), length, url.as_ptr(), null(), PARSE) };
        if document.is_null() { Err(self.told("it is not XML")) } else { Ok(document) }
    }

    fn save(&mut self, result: Pointer, sheet: &Stylesheet) -> Result<Transformed, String> {
        let (mut bytes, mut length) = (null_mut(), 0);
        // SAFETY: both places are valid; what comes back was allocated by `malloc`, which the libraries were not told to
        // replace, and has that length. The fields were tried out.
        unsafe {
            if (self.functions.xsltSaveResultToString)(&raw mut bytes, &raw mut length, result, sheet.0) < 0 {
                return Err(self.told("the result cannot be written"));
            }
            let copied = match usize::try_from(length) {
                Ok(length) if !bytes.is_null() => std::slice::from_raw_parts(bytes, length).to_vec(),
                _ => Vec::new(),
            };
            libc::free(bytes.cast());
            let is_html = read::<c_int>(result, place::DOCUMENT_TYPE) == HTML_DOCUMENT;
            let own = if is_html { "html" } else { "xml" };
            Ok(Transformed {
                bytes: copied,
                method: self.output(sheet, place::METHOD).unwrap_or_else(|| own.to_owned()),
                media_type: self.output(sheet, place::MEDIA_TYPE),
                encoding: self.output(sheet, place::ENCODING),
                messages: self.messages(),
            })
        }
    }

    /// What `xsl:output` says, here or in the nearest import that says it.
    unsafe fn output(&self, sheet: &Stylesheet, place: usize) -> Option<String> {
        let mut style = sheet.0;
        while !style.is_null() {
            // SAFETY: the caller's: within the structure, a text that ends with zero or nothing.
            unsafe {
                let text = read::<*const c_char>(style, place);
                if !text.is_null() {
                    return Some(CStr::from_ptr(text).to_string_lossy().into_owned());
                }
                style = (self.functions.xsltNextImport)(style);
            }
        }
        None
    }

    fn forget_messages(&mut self) {
        // SAFETY: an open stream.
        unsafe { libc::rewind(self.messages) };
    }

    fn messages(&mut self) -> String {
        // SAFETY: an open stream over `text`.
        let length = unsafe {
            libc::fflush(self.messages);
            libc::ftell(self.messages)
        };
        let length = usize::try_from(length).unwrap_or_default().min(self.text.len());
        String::from_utf8_lossy(&self.text[..length]).into_owned()
    }

    fn told(&mut self, otherwise: &str) -> String {
        let messages = self.messages();
        if messages.trim().is_empty() { otherwise.to_owned() } else { messages }
    }
}

fn compiles(whether: bool) {
    CALLBACKS.with_borrow_mut(|callbacks| callbacks.iter_mut().for_each(|callbacks| callbacks.compiles = whether));
}

/// Opens what a stylesheet imports, includes or calls for with `document()`.
unsafe extern "C" fn load_document(
    uri: Text,
    dictionary: Pointer,
    options: c_int,
    context: Pointer,
    kind: c_int,
) -> Pointer {
    let _ = options;
    if uri.is_null() {
        return null_mut();
    }
    // SAFETY: the library's text, which ends with zero.
    let expected = unsafe { CStr::from_ptr(uri.cast()) }.to_owned();
    let default = CALLBACKS.with_borrow_mut(|callbacks| {
        let callbacks = callbacks.as_mut()?;
        callbacks.expected = Some(expected);
        Some(callbacks.default)
    });
    // SAFETY: the library's own loader with its own arguments, and our options.
    default.map_or(null_mut(), |default| unsafe { default(uri, dictionary, PARSE, context, kind) })
}

/// Opens what the line above expects and, below the root, what a stylesheet declares; nothing else.
unsafe extern "C" fn load_entity(url: *const c_char, _: *const c_char, _: Pointer) -> Pointer {
    if url.is_null() {
        return null_mut();
    }
    // SAFETY: the library's text, which ends with zero.
    let url = unsafe { CStr::from_ptr(url) };
    let found = CALLBACKS.with_borrow_mut(|callbacks| {
        let callbacks = callbacks.as_mut()?;
        let is_own = callbacks.compiles && url.to_bytes().starts_with(b"/");
        let is_expected = callbacks.expected.take_if(|expected| expected.as_c_str() == url).is_some();
        (is_expected || is_own).then_some(())?;
        let bytes = callbacks.loader.as_mut()?(url.to_str().ok()?)?;
        Some((callbacks.functions, bytes))
    });
    let Some((f, bytes)) = found else { return null_mut() };
    let Ok(length) = c_int::try_from(bytes.len()) else { return null_mut() };
    // SAFETY: the buffer copies the bytes and belongs to the stream, which belongs to the library; the name is allocated
    // by it too, as it frees it.
    unsafe {
        let buffer = (f.xmlParserInputBufferCreateMem)(bytes.as_ptr().cast(), length, 0);
        if buffer.is_null() {
            return null_mut();
        }
        let stream = (f.xmlNewIOInputStream)(null_mut(), buffer, 0);
        if !stream.is_null() {
            let name = (f.xmlStrdup)(url.as_ptr().cast());
            stream.byte_add(place::FILE_NAME).cast::<*mut c_uchar>().write(name);
        }
        stream
    }
}

/// The value at `offset` of a structure.
unsafe fn read<T: Copy>(structure: Pointer, offset: usize) -> T {
    // SAFETY: the caller's.
    unsafe { structure.byte_add(offset).cast::<T>().read() }
}

fn open(names: &[&CStr]) -> Result<Pointer, String> {
    for name in names {
        // SAFETY: a library of the system; its initialisers are its own affair.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !library.is_null() {
            return Ok(library);
        }
    }
    Err(format!("{}: {}", names[0].to_string_lossy(), last_error()))
}

/// `name` ends with zero.
fn symbol(library: Pointer, name: &str) -> Result<Pointer, String> {
    // SAFETY: an open library and a text that ends with zero.
    let found = unsafe { libc::dlsym(library, name.as_ptr().cast()) };
    if found.is_null() { Err(last_error()) } else { Ok(found) }
}

fn last_error() -> String {
    // SAFETY: the text is this thread's, and copied at once.
    unsafe {
        let error = libc::dlerror();
        if error.is_null() {
            "it cannot be loaded".to_owned()
        } else {
            CStr::from_ptr(error).to_string_lossy().into_owned()
        }
    }
}
