//! Refuses to build without the part of SQLite that `digest/row_hook.rs` needs: the linker would only name a symbol.

fn main() {
    const VARIABLE: &str = "LIBSQLITE3_FLAGS";
    const NEEDED: &str = "-DSQLITE_ENABLE_PREUPDATE_HOOK";
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if !std::env::var(VARIABLE).unwrap_or_default().contains(NEEDED) {
        println!(
            "cargo::error=the ledger needs SQLite with its preupdate hook: run cargo inside the repository, whose \
             .cargo/config.toml sets it, or set {VARIABLE}=\"{NEEDED}\""
        );
    }
}
