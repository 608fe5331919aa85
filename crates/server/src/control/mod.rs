//! The operator's API: HTTP/1.1 and JSON, on a Unix socket that only the server's user and group may open, and, where it is asked for, on
//! a TCP address of its own for those who know a token. Never on the browsers' listener.
//!
//! Both doors take their endpoints from one table, [`routes::ROUTES`], which `docs/openapi.json` describes.

mod access;
mod answer;
mod connections;
mod doors;
mod json;
mod metrics;
mod push;
mod routes;
mod socket;

pub(crate) use doors::HttpListener;
pub(crate) use socket::ControlSocket;
