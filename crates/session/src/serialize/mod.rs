//! Finds single values in what PHP has serialized. Reads, never builds.
//!
//! The law: bytes from outside, in one way through. Anything that PHP could not have written is [`Malformed`] and nobody is found in it;
//! strings are skipped by their length and never searched, so nothing that a visitor put into one is taken for a key.

mod frame;
mod json;
mod path;
mod reader;
mod skip;
mod value;
mod walk;

use std::borrow::Cow;

use thiserror::Error;

pub use path::{BadKeyPath, KeyPath};
pub use value::{NotAnId, Value};

use path::Segment;
use reader::Reader;
use walk::{MAX_WAYS, Walk};

/// A session of more bytes is not read.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How a session is written: PHP's `session.serialize_handler`, or JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Serializer {
    /// Told by the first bytes, and by them alone, so that nothing a visitor has put into a session changes it: `{` or `[` is JSON, `a:1:{`
    /// is `php_serialize`, a byte below 32 is `php_binary` (the length of a first name that is shorter), all else is `php`. There, names
    /// that hold a `"`, a `;` or a control character are refused, since they would be another format's values. So a `php` session
    /// is taken for another one only if the site itself begins the name of a variable in such a way.
    #[default]
    Auto,
    /// PHP's default: `id|i:5;name|s:3:"abc";`.
    Php,
    /// One array: `a:1:{s:2:"id";i:5;}`.
    PhpSerialize,
    /// A byte with the length before each name.
    PhpBinary,
    /// An object or array, as by `json_encode()`.
    Json,
}

/// The data are not what the serializer writes. Says where and what had to be there, and nothing of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("byte {at}: expected {expected}")]
pub struct Malformed {
    /// The byte, counted from 0.
    pub at: usize,
    /// What had to begin there.
    pub expected: &'static str,
}

/// What lies at the end of each path, in the order of the paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a>(Vec<Option<Value<'a>>>);

/// The value that should be the user's id can't be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear {
    /// Which of the paths leads there, counted from 0.
    pub path: usize,
    /// What is wrong with it.
    pub reason: NotAnId,
}

impl<'a> Found<'a> {
    /// What lies at the end of a path, by its place among the paths; `None` if nothing does.
    #[must_use]
    pub fn value(&self, path: usize) -> Option<&Value<'a>> {
        self.0.get(path)?.as_ref()
    }

    /// All of them, in the order of the paths.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&Value<'a>>> {
        self.0.iter().map(Option::as_ref)
    }

    /// The first user, by the order of the paths: values that say *nobody* ([`Value::user_id`]) are passed over. `None` is a guest.
    ///
    /// # Errors
    /// When the first value that says more than *nobody* can't be an id. A later path is not tried then: what the site means is unclear.
    pub fn first_user(&self) -> Result<Option<Cow<'a, str>>, Unclear> {
        for (path, value) in self.values().enumerate() {
            let Some(value) = value else { continue };
            match value.user_id() {
                Ok(None) => {}
                Ok(user) => return Ok(user),
                Err(reason) => return Err(Unclear { path, reason }),
            }
        }
        Ok(None)
    }
}

/// Finds what lies at the end of each path.
///
/// The data are read once; once more, if a value that is wanted is a reference to another place (`R:`, `r:`). Strings are borrowed, memory is
/// needed for what is found and for arrays that are open at the same time. Empty data are an empty session. Where a key comes
/// twice the last one counts, as in PHP. JSON objects count as arrays.
///
/// ```
/// use wootz_session::serialize::{KeyPath, Serializer, Value, find};
///
/// let paths = ["id", "auth.user.name"].map(|path| KeyPath::parse(path).expect("a path"));
/// let data = br#"id|i:0;auth|a:1:{s:4:"user";a:1:{s:4:"name";s:5:"alice";}}"#;
/// let found = find(data, Serializer::Auto, &paths).expect("a session");
/// assert_eq!(found.value(0), Some(&Value::Int(0)));
/// assert_eq!(found.first_user().expect("clear").as_deref(), Some("alice"));
/// ```
///
/// # Errors
/// When the data are not what the serializer writes, anywhere, also behind what was wanted; with arrays in each other deeper than PHP reads
/// them (4096); or when there are more than [`MAX_BYTES`].
pub fn find<'a>(data: &'a [u8], serializer: Serializer, paths: &[KeyPath]) -> Result<Found<'a>, Malformed> {
    if data.len() > MAX_BYTES {
        return Err(Malformed { at: MAX_BYTES, expected: "no more than 16 MiB" });
    }
    if paths.is_empty() {
        ways_end(data, serializer, &[])?;
    }
    let mut found = Vec::with_capacity(paths.len());
    // A path has at most two ways.
    for paths in paths.chunks(MAX_WAYS / 2) {
        let ways: Vec<&[Segment]> = paths.iter().flat_map(KeyPath::ways).collect();
        let mut ends = ways_end(data, serializer, &ways)?.into_iter();
        for path in paths {
            let first = ends.by_ref().take(path.ways().count()).fold(None, Option::or);
            found.push(first);
        }
    }
    Ok(Found(found))
}

fn ways_end<'a>(
    data: &'a [u8],
    serializer: Serializer,
    ways: &[&[Segment]],
) -> Result<Vec<Option<Value<'a>>>, Malformed> {
    let Some(frame) = frame::frame(data, serializer) else { return json::find(data, ways) };
    let mut walk = Walk::new(ways);
    frame.read(&mut Reader::new(data), &mut walk)?;
    walk.finish(data, |reader, walk| frame.read(reader, walk))
}

#[cfg(test)]
mod tests;
