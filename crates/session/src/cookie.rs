//! The cookie that names a session, read exactly as PHP reads it.
