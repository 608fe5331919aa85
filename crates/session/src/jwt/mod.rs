//! JSON Web Tokens: who signed it, for whom, until when.
