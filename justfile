# Daily commands; `just` lists them.

_default:
    @just --list --unsorted

# A call of ten seconds, relayed and recorded on this machine
demo:
    cargo run --release -- demo

# Every test, Rust and Python, with what they need
test *arguments:
    ./tests/run {{ arguments }}

# The tests of one Rust crate (core, relay or cli), quickly
unit crate *arguments:
    cargo test --manifest-path rust/{{ crate }}/Cargo.toml {{ arguments }}

# Black-box tests by file or name, against what `just test` built last
box *arguments:
    cargo build --release
    .venv/bin/python -m pytest {{ arguments }}

# What must pass before a change is accepted
ci:
    ./.ci/run

# Format everything
fmt:
    cargo fmt --all
    .venv/bin/ruff format python tests
    .venv/bin/ruff check --fix python tests

# Rust and Python lints
lint:
    cargo clippy --release --workspace --all-targets -- -D warnings
    .venv/bin/ruff check python tests
    .venv/bin/mypy

# The Python module, built into .venv
develop:
    VIRTUAL_ENV=$PWD/.venv .venv/bin/maturin develop --release

# The Debian package, in target/debian; needs cargo-deb (cargo install cargo-deb)
deb *arguments:
    ./rust/cli/packaging/build-deb {{ arguments }}
