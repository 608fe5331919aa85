//! Finds single values in what PHP has serialized. Reads, never builds.
