//! Links the archive of libFuzzer that `run` has made.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBFUZZER");
    if let Ok(archive) = std::env::var("LIBFUZZER") {
        println!("cargo::rustc-link-arg-bins={archive}");
        println!("cargo::rustc-link-arg-bins=-lstdc++");
    }
}
