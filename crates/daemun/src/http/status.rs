//! Status codes (RFC 9110, section 15).

/// A status code from 100 to 999.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Status(u16);

impl Status {
    /// 100: Continue.
    pub const CONTINUE: Self = Self(100);
    /// 103: Early Hints (RFC 8297).
    pub const EARLY_HINTS: Self = Self(103);
    /// 200: OK.
    pub const OK: Self = Self(200);
    /// 204: No Content.
    pub const NO_CONTENT: Self = Self(204);
    /// 206: Partial Content.
    pub const PARTIAL_CONTENT: Self = Self(206);
    /// 301: Moved Permanently.
    pub const MOVED_PERMANENTLY: Self = Self(301);
    /// 304: Not Modified.
    pub const NOT_MODIFIED: Self = Self(304);
    /// 308: Permanent Redirect.
    pub const PERMANENT_REDIRECT: Self = Self(308);
    /// 400: Bad Request.
    pub const BAD_REQUEST: Self = Self(400);
    /// 401: Unauthorized.
    pub const UNAUTHORIZED: Self = Self(401);
    /// 403: Forbidden.
    pub const FORBIDDEN: Self = Self(403);
    /// 404: Not Found.
    pub const NOT_FOUND: Self = Self(404);
    /// 405: Method Not Allowed.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 408: Request Timeout.
    pub const REQUEST_TIMEOUT: Self = Self(408);
    /// 412: Precondition Failed.
    pub const PRECONDITION_FAILED: Self = Self(412);
    /// 413: Content Too Large.
    pub const CONTENT_TOO_LARGE: Self = Self(413);
    /// 414: URI Too Long.
    pub const URI_TOO_LONG: Self = Self(414);
    /// 416: Range Not Satisfiable.
    pub const RANGE_NOT_SATISFIABLE: Self = Self(416);
    /// 417: Expectation Failed.
    pub const EXPECTATION_FAILED: Self = Self(417);
    /// 421: Misdirected Request.
    pub const MISDIRECTED_REQUEST: Self = Self(421);
    /// 429: Too Many Requests.
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    /// 431: Request Header Fields Too Large.
    pub const FIELDS_TOO_LARGE: Self = Self(431);
    /// 499: the client closed the connection before it was answered; stands in logs only, as nginx writes it.
    pub const CLIENT_CLOSED: Self = Self(499);
    /// 500: Internal Server Error.
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    /// 501: Not Implemented.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// 502: Bad Gateway.
    pub const BAD_GATEWAY: Self = Self(502);
    /// 503: Service Unavailable.
    pub const SERVICE_UNAVAILABLE: Self = Self(503);
    /// 504: Gateway Timeout.
    pub const GATEWAY_TIMEOUT: Self = Self(504);
    /// 505: HTTP Version Not Supported.
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);
    /// 507: Insufficient Storage.
    pub const INSUFFICIENT_STORAGE: Self = Self(507);

    /// The status with this code, if it has three digits and is not below 100.
    pub fn from_code(code: u16) -> Option<Self> {
        (100..=999).contains(&code).then_some(Self(code))
    }

    /// The code.
    pub fn code(self) -> u16 {
        self.0
    }

    /// 1xx.
    pub fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// Whether a response with this status has no body, whatever its fields say (RFC 9112, section 6.3).
    pub fn is_bodiless(self) -> bool {
        self.is_informational() || matches!(self.0, 204 | 304)
    }

    /// The registered reason phrase; empty for a code nobody registered.
    pub fn reason(self) -> &'static str {
        match self.0 {
            100 => "Continue",
            101 => "Switching Protocols",
            103 => "Early Hints",
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            203 => "Non-Authoritative Information",
            204 => "No Content",
            205 => "Reset Content",
            206 => "Partial Content",
            300 => "Multiple Choices",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            304 => "Not Modified",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            _ => self.error_reason(),
        }
    }

    fn error_reason(self) -> &'static str {
        match self.0 {
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            407 => "Proxy Authentication Required",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            416 => "Range Not Satisfiable",
            417 => "Expectation Failed",
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            423 => "Locked",
            424 => "Failed Dependency",
            425 => "Too Early",
            426 => "Upgrade Required",
            428 => "Precondition Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            451 => "Unavailable For Legal Reasons",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            507 => "Insufficient Storage",
            511 => "Network Authentication Required",
            _ => "",
        }
    }
}
