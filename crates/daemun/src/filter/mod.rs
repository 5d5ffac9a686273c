//! What happens to a request before its handler and to the answer behind it.
//!
//! A route's filters are compiled into one chain when the configuration is read. Their order is fixed, whatever the
//! order in the file; each may end the request:
//!
//! 1. `allow`, `deny`: who may ([`access`]); 403.
//! 2. `rate_limit`: how often ([`rate_limit`]); 429.
//! 3. `headers.cors`: a preflight is answered here, before it would have to authenticate ([`headers`]).
//! 4. `basic_auth`: who it is ([`basic_auth`]); 401.
//! 5. `max_body`, `timeout`, `request_buffering`: what the handler is held to; 413.
//! 6. `rewrite`: another path and query for the handler ([`rewrite`]).
//! 7. `strip_prefix`: a part of the path becomes `SCRIPT_NAME`.
//! 8. `headers.request`: fields for the handler.
//! 9. `cache`: perhaps the answer is at hand ([`cache`]).
//! 10. `early_hints`: what the page named last goes ahead of it ([`early_hints`]).
//! 11. The handler. Its answer comes back through `xslt` ([`xslt`]), `early_hints`, which learns from it, `compress` ([`compress`]), so that what is cached is compressed once,
//!     `cache`, `errors` ([`errors`]), `headers` and `server_timing`. An error that no handler answered gets `errors`,
//!     `headers` and `server_timing` too.
//!
//! Without a filter there is no chain: the router calls the handler itself. Knows requests and answers. Must not know
//! routes, handlers or settings files.

mod access;
mod basic_auth;
mod cache;
mod chain;
mod compress;
mod early_hints;
mod errors;
mod headers;
mod kept;
mod password;
mod rate_limit;
mod rewrite;
mod settings;
mod xslt;

pub use access::AccessSettings;
pub use basic_auth::AuthSettings;
pub use cache::CacheSettings;
pub use chain::Filtered;
pub use compress::CompressSettings;
pub use early_hints::EarlyHints;
pub use errors::{ErrorPage, ErrorPages};
pub use headers::{CorsSettings, HeaderSettings};
pub use kept::Kept;
pub use password::Password;
pub use rate_limit::{Per, RateLimitSettings};
pub use rewrite::{Rewrite, RewriteSettings};
pub use settings::{Described, FilterSettings, Placed};
pub use xslt::{Transforming, XsltSettings, is_transformed};
