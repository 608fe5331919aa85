//! `wootz status`: what the running server does, over its control socket.

use clap::ArgMatches;

use crate::arguments::given;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::print;
use crate::table::table;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let mut client = Client::connect(matches)?;
    let answer = client.ask("GET", "/v1/status", None)?;
    if given(matches, "json") {
        return print(&answer.text()?);
    }
    print(&table(&answer.json()?))
}
