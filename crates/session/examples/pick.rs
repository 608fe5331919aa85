//! Says what lies where in a session: `pick PATH… < /var/lib/php/sessions/sess_…` prints a line for each path.
//!
//! `pick --rounds 1000 PATH…` does it so often and then says in nanoseconds how long one of them took, on a line before.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::time::Instant;

use wootz_session::serialize::{KeyPath, Serializer, find};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut rounds = 1_u32;
    if arguments.first().is_some_and(|first| first == "--rounds") {
        rounds = arguments.get(1).ok_or("--rounds needs a number")?.parse()?;
        arguments.drain(..2);
    }
    let paths: Vec<KeyPath> = arguments.iter().map(|path| KeyPath::parse(path)).collect::<Result<_, _>>()?;
    let mut data = Vec::new();
    io::stdin().read_to_end(&mut data)?;
    let start = Instant::now();
    for _ in 1..rounds {
        black_box(find(black_box(&data), Serializer::Auto, black_box(&paths)))?;
    }
    let found = find(&data, Serializer::Auto, &paths)?;
    if rounds > 1 {
        println!("{}", start.elapsed().as_nanos() / u128::from(rounds));
    }
    for (path, value) in paths.iter().zip(found.values()) {
        println!("{path}: {value:?}");
    }
    Ok(())
}
