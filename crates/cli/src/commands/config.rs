//! `wootz config`: what is in force and where it came from, or every default with its reason.

use clap::ArgMatches;

use crate::arguments::given;
use crate::failure::Failure;
use crate::output::print;
use crate::problem::Problems;
use crate::settings::{Settings, default_file, effective_file};

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    if given(matches, "default") {
        return print(&default_file());
    }
    // Only how things are written is judged, not whether they could be served here: `check` does that.
    let mut problems = Problems::default();
    let settings = Settings::load(&super::sources(matches), &mut problems);
    if !problems.is_empty() {
        return Err(Failure::Configuration(problems));
    }
    print(&effective_file(&settings))
}
