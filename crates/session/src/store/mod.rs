//! Where sites keep their sessions. Read-only.
