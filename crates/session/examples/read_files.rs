//! What it costs to read a session file and to look at one again: `cargo run --release -p wootz-session --example read_files`.

use std::time::{Duration, SystemTime};

use wootz_session::SessionId;
use wootz_session::store::{Recheck, Store, StoreOptions, StoreSettings};

const SESSIONS: usize = 10_000;
const ROUNDS: usize = 10;

/// Of this thread, by the kernel's own count.
fn cpu_used() -> Duration {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is mounted");
    let nanoseconds = counts.split_whitespace().next().and_then(|count| count.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

fn main() {
    let directory = std::env::temp_dir().join(format!("wootz-read-files-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    let ids: Vec<SessionId> =
        (0..SESSIONS).map(|number| SessionId::parse(format!("{number:026}").as_bytes()).expect("an id")).collect();
    for id in &ids {
        let path = directory.join(format!("sess_{}", id.as_str()));
        std::fs::write(&path, "id|i:42;name|s:5:\"alice\";".repeat(80)).expect("a file");
        let file = std::fs::File::options().append(true).open(&path).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("a file");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let settings = StoreSettings::parse(&format!("files:{}", directory.display())).expect("settings");
        let store = Store::new(settings, StoreOptions::default()).expect("a store");
        let mut known = Vec::new();
        let began = cpu_used();
        for round in 0..ROUNDS {
            for id in &ids {
                let record = store.read(id).await.expect("readable").expect("a session");
                if round == 0 {
                    known.push((id.clone(), record.version));
                }
            }
        }
        let per = |used: Duration| used.as_secs_f64() * 1e6 / (SESSIONS * ROUNDS) as f64;
        println!("read: {:.2} µs of CPU each (2 KiB)", per(cpu_used() - began));
        let began = cpu_used();
        for _ in 0..ROUNDS {
            let found = store.recheck(&known).await.expect("readable");
            assert!(found.iter().all(|found| matches!(found, Recheck::Same)));
        }
        println!("recheck of an unchanged one: {:.2} µs of CPU each", per(cpu_used() - began));
    });
    std::fs::remove_dir_all(directory).expect("ours");
}
