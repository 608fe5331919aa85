# What people type here. Each line is an ordinary command; none hides more than it says.
.PHONY: demo test check bench

demo: ## the main job in a browser: open the address that it prints
	cargo run --release -- serve --dev -- sh examples/sh/application.sh

test: ## every test, after installing what the tests need
	sh tests/run

check: ## what an editor would complain about
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: ## speed and memory, one table
	benches/run
