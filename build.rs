//! Keeps pgrx's descriptions of the functions in the library where tests use it: one compares them with the declarations
//! in `sql/`. Nothing refers to them, so a linker that drops unused sections, as that of a release does, drops them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--no-gc-sections");
    }
}
