//! One way through serialized data, keeping what is asked for.
//!
//! The law: no recursion over arrays and objects, no step back, nothing is allocated by a length that the data only claim. A value that
//! was found is forgotten when its key comes again: in PHP the last one wins.
//!
//! PHP numbers values from 1 as they begin, over the whole file, for references to name them. `R` has no number of its own, `r` has.

use super::Malformed;
use super::path::{Fit, Segment};
use super::reader::{Key, Reader, Token};
use super::skip::plain_entries;
use super::value::Value;

/// PHP's `unserialize_max_depth`: what lies deeper could not be read there either.
const MAX_DEPTH: usize = 4096;
/// What classes wrote may hold what classes wrote; deeper, it is skipped as unknown.
const MAX_CUSTOM_DEPTH: usize = 16;
/// Every number is known.
const ALL: usize = usize::MAX;

/// Ways of paths: a bit for each.
pub(super) type Ways = u64;

/// How many ways one walk can follow.
pub(super) const MAX_WAYS: usize = Ways::BITS as usize;

/// What lies at the end of a way.
#[derive(Debug, Clone)]
pub(super) enum Hit<'a> {
    Nothing,
    Value(Value<'a>),
    /// Where a reference leads, with so many segments already behind.
    Reference(Reference, usize),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    number: usize,
    at: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Variable,
    Object,
}

/// What the keys of something open are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Keys,
    Properties,
}

/// An array or object that is open.
#[derive(Debug)]
struct Open {
    left: usize,
    ways: Ways,
    /// Those of `ways` whose key has been met exactly, and not only as the bare name of a property.
    exact: Ways,
    depth: usize,
    holds: Holds,
}

/// Which ways lead through the next value, and how many of their segments are behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) ways: Ways,
    pub(super) depth: usize,
}

impl Wanted {
    const NOTHING: Self = Self { ways: 0, depth: 0 };
}

/// The walk.
pub(super) struct Walk<'a, 'p> {
    ways: &'p [&'p [Segment]],
    hits: Vec<Hit<'a>>,
    open: Vec<Open>,
    customs: usize,
    /// Values so far.
    numbered: usize,
    /// Numbers after this one can't be known: a class has written something of its own before them.
    known: usize,
    /// Where each numbered value begins, if that is asked for.
    index: Option<Vec<u32>>,
}

impl<'a, 'p> Walk<'a, 'p> {
    /// At most [`MAX_WAYS`] ways.
    pub(super) fn new(ways: &'p [&'p [Segment]]) -> Self {
        debug_assert!(ways.len() <= MAX_WAYS);
        Self {
            ways,
            hits: vec![Hit::Nothing; ways.len()],
            open: Vec::new(),
            customs: 0,
            numbered: 0,
            known: ALL,
            index: None,
        }
    }

    /// A walk that finds nothing but where each value begins.
    fn indexing() -> Self {
        Self { index: Some(Vec::new()), ..Self::new(&[]) }
    }

    /// All ways, at the beginning.
    pub(super) fn wanted(&self) -> Wanted {
        let ways = if self.ways.len() == MAX_WAYS { Ways::MAX } else { (1 << self.ways.len()) - 1 };
        Wanted { ways, depth: 0 }
    }

    /// The ways that lead through the session's variable of this name.
    pub(super) fn variable(&mut self, name: Key<'_>) -> Wanted {
        let Wanted { ways, depth } = self.wanted();
        let mut open = Open { left: 0, ways, exact: 0, depth, holds: Holds::Keys };
        Wanted { ways: self.through(&mut open, name), depth: depth + 1 }
    }

    /// Reads one value with all that it holds.
    pub(super) fn value(&mut self, reader: &mut Reader<'a>, wanted: Wanted) -> Result<(), Malformed> {
        let outer = self.open.len();
        self.begin(reader, wanted)?;
        while self.open.len() > outer {
            let Some(open) = self.open.last_mut() else { return Ok(()) };
            if open.ways == 0 && self.index.is_none() {
                let (skipped, at) = plain_entries(reader.data, reader.at, open.left);
                (open.left, reader.at) = (open.left - skipped, at);
                self.numbered += skipped;
            }
            if open.left == 0 {
                reader.expect(b'}', "`}`")?;
                self.open.pop();
                continue;
            }
            open.left -= 1;
            let key = reader.key()?;
            let inner = if open.ways == 0 { Wanted::NOTHING } else { self.enter(key) };
            self.begin(reader, inner)?;
        }
        Ok(())
    }

    /// Reads a value that holds none, or opens one that does.
    #[inline]
    fn begin(&mut self, reader: &mut Reader<'a>, wanted: Wanted) -> Result<(), Malformed> {
        let at = reader.at;
        let token = reader.token()?;
        if let Token::Same(number) = token {
            return self.refer(Reference { number, at, kind: Kind::Variable }, reader, wanted);
        }
        if let Token::SameObject(number) = token {
            self.refer(Reference { number, at, kind: Kind::Object }, reader, wanted)?;
        }
        self.number(at);
        let ways = if wanted.ways == 0 { 0 } else { self.settle(wanted, token) };
        let (left, holds) = match token {
            Token::Array(left) => (left, Holds::Keys),
            Token::Object(left) => (left, Holds::Properties),
            Token::Custom(length) => return self.custom(reader, length),
            _ => return Ok(()),
        };
        if left == 0 {
            return reader.expect(b'}', "`}`");
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Malformed { at, expected: "no more than 4096 arrays and objects in each other" });
        }
        self.open.push(Open { left, ways, exact: 0, depth: wanted.depth, holds });
        Ok(())
    }

    fn number(&mut self, at: usize) {
        self.numbered += 1;
        if let Some(index) = &mut self.index {
            // The size of all data is limited to far less.
            index.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    fn refer(&mut self, to: Reference, reader: &Reader<'a>, Wanted { ways, depth }: Wanted) -> Result<(), Malformed> {
        let possible = if self.known == ALL { self.numbered } else { reader.data.len() };
        if to.number > possible {
            return Err(Malformed { at: to.at, expected: "a reference to a value before it" });
        }
        for way in bits(ways) {
            self.hits[way] = Hit::Reference(to, depth);
        }
        Ok(())
    }

    /// The ways that lead through a key of what is open.
    fn enter(&mut self, key: Key<'_>) -> Wanted {
        let Some(mut open) = self.open.pop() else { return Wanted::NOTHING };
        let ways = self.through(&mut open, key);
        let depth = open.depth + 1;
        self.open.push(open);
        Wanted { ways, depth }
    }

    fn through(&mut self, open: &mut Open, key: Key<'_>) -> Ways {
        let mut through = 0;
        for way in bits(open.ways) {
            let bit = 1 << way;
            match self.ways[way].get(open.depth).map_or(Fit::Not, |segment| segment.fit(key)) {
                Fit::Exact => open.exact |= bit,
                Fit::Bare if open.holds == Holds::Properties && open.exact & bit == 0 => {}
                Fit::Bare | Fit::Not => continue,
            }
            self.hits[way] = Hit::Nothing;
            through |= bit;
        }
        through
    }

    /// Gives the value to the ways that end here; returns those that lead on.
    fn settle(&mut self, Wanted { ways, depth }: Wanted, token: Token<'a>) -> Ways {
        let mut deeper = 0;
        for way in bits(ways) {
            if self.ways[way].len() == depth {
                if let Some(value) = value(token) {
                    self.hits[way] = Hit::Value(value);
                }
            } else {
                deeper |= 1 << way;
            }
        }
        deeper
    }

    /// What a class wrote itself. Nearly all write one serialized value, which their `unserialize()` numbers with all others. What
    /// they did with anything else only they know, and so how the values after it are numbered.
    fn custom(&mut self, reader: &mut Reader<'a>, length: usize) -> Result<(), Malformed> {
        let (end, open, numbered) = (reader.at + length, self.open.len(), self.numbered);
        let mut content = Reader { data: &reader.data[..end], at: reader.at };
        self.customs += 1;
        let one_value = self.customs <= MAX_CUSTOM_DEPTH
            && self.value(&mut content, Wanted::NOTHING).is_ok()
            && content.is_at_end();
        self.customs -= 1;
        if !one_value && length > 0 {
            self.open.truncate(open);
            self.numbered = numbered;
            self.known = self.known.min(numbered);
            if let Some(index) = &mut self.index {
                index.truncate(numbered);
            }
        }
        reader.at = end;
        reader.expect(b'}', "`}` after as many bytes as their length says")
    }

    /// What was found, with references followed to the values they name. `frame` reads all the data once more, if that is needed.
    pub(super) fn finish(
        mut self,
        data: &'a [u8],
        frame: impl Fn(&mut Reader<'a>, &mut Walk<'a, '_>) -> Result<(), Malformed>,
    ) -> Result<Vec<Option<Value<'a>>>, Malformed> {
        if self.hits.iter().any(|hit| matches!(hit, Hit::Reference(..))) {
            let mut all = Walk::indexing();
            frame(&mut Reader::new(data), &mut all)?;
            let index = all.index.unwrap_or_default();
            let known = self.known;
            for way in 0..self.ways.len() {
                self.follow(way, data, &index, known)?;
            }
        }
        let found = |hit| if let Hit::Value(value) = hit { Some(value) } else { None };
        Ok(self.hits.into_iter().map(found).collect())
    }

    /// Follows references until a value is there. It ends: each leads to an earlier value, or one more segment is behind.
    fn follow(&mut self, way: usize, data: &'a [u8], index: &[u32], known: usize) -> Result<(), Malformed> {
        while let Hit::Reference(Reference { number, at, kind }, depth) = self.hits[way] {
            let start = index.get(number - 1).filter(|_| number <= known);
            let Some(start) = start.and_then(|start| usize::try_from(*start).ok()) else {
                self.hits[way] = Hit::Value(Value::Unresolved);
                break;
            };
            if kind == Kind::Object && !matches!(data.get(start), Some(b'O' | b'C' | b'E' | b'r')) {
                return Err(Malformed { at, expected: "a reference to an object" });
            }
            self.hits[way] = Hit::Nothing;
            // All has been read once: what is said of other references there is not judged again.
            (self.numbered, self.known) = (number - 1, 0);
            self.value(&mut Reader { data, at: start }, Wanted { ways: 1 << way, depth })?;
        }
        Ok(())
    }
}

/// What a token stands for; `None` if that is elsewhere.
fn value(token: Token<'_>) -> Option<Value<'_>> {
    Some(match token {
        Token::Null => Value::Null,
        Token::Bool(value) => Value::Bool(value),
        Token::Int(value) => Value::Int(value),
        Token::Float(written) => Value::Float(written),
        Token::Text(text) => Value::Bytes(text.bytes()),
        Token::Enum(case) => Value::Enum(case),
        Token::Array(_) => Value::Array,
        Token::Object(_) | Token::Custom(_) => Value::Object,
        Token::Same(_) | Token::SameObject(_) => return None,
    })
}

fn bits(ways: Ways) -> impl Iterator<Item = usize> {
    let mut left = ways;
    std::iter::from_fn(move || {
        let bit = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (bit < Ways::BITS).then_some(bit as usize)
    })
}
