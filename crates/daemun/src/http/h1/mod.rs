//! The HTTP/1.1 codec (RFC 9112): bytes in, values out, and back. No socket and no clock.
