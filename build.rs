//! Keeps pgrx's descriptions of the functions in the library, for the test that compares them with the declarations in
//! `sql/`. Nothing refers to them, so the linker would drop them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/descriptions.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-cdylib=-Wl,-T,{root}/src/descriptions.ld");
    }
}
