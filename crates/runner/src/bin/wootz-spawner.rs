//! The spawner as a program of its own, for programs that can't begin their `main` with `run_if_spawner` (tests cannot).

fn main() -> std::process::ExitCode {
    wootz_runner::exec::run_if_spawner();
    eprintln!("wootz-spawner: this is started by its server, never by hand");
    std::process::ExitCode::from(2)
}
