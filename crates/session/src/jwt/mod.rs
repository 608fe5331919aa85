//! JSON Web Tokens (RFC 7519): who signed it, for whom, until when.
//!
//! The algorithm belongs to the key, never to the token: a token can only say which of the configured keys may have
//! signed it. A token without an end is none. What is unclear (a claim given twice, a time that is a text) lets nobody
//! in, and no text that is made here ever holds a token, a claim or a secret.

mod json;
mod jwks;
mod keys;
mod pem;
mod sources;
mod token;
mod verifier;

pub use keys::{Algorithm, KeyError, KeyProblem, KeySource};
pub use sources::{
    SUBPROTOCOL, Source, carries_token, find, from_authorization, from_query, from_subprotocols, query_without_token,
    subprotocols_without_token, without_token,
};
pub use token::{Claims, MAX_TOKEN_BYTES, Rejected};
pub use verifier::{JwtSettings, Reload, Verifier};
