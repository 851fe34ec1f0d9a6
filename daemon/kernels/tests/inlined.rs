//! Every vector instruction is where it belongs, inside the loops: one that the compiler left as a function of its own costs
//! a call and two trips through memory for each sixteen values (closures around vectors are what usually does it).

use std::hint::black_box;

use diffused_kernels::{GroupSums, Level};

/// Modules of `core::arch` that hold the kernels' instructions.
const MODULES: [&str; 8] = ["avx", "avx2", "avx512f", "avx512bw", "avx512vnni", "fma", "f16c", "neon"];

/// The symbols of a program that are Rust's.
fn symbols(program: &[u8]) -> impl Iterator<Item = &str> {
    let symbols = program.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    symbols.filter(|symbol| symbol.starts_with("_ZN") || symbol.starts_with("_R"))
}

/// Names of intrinsics among the symbols of a program.
fn intrinsics(program: &[u8]) -> Vec<String> {
    let vector = |symbol: &&str| {
        symbol.contains("core_arch")
            && MODULES.iter().any(|module| symbol.contains(&format!("{}{module}", module.len())))
    };
    symbols(program).filter(vector).map(str::to_owned).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "without optimisation nothing is inlined")]
fn no_intrinsic_is_a_function_of_its_own() {
    black_box((
        Level::linear as *const (),
        Level::conv2d as *const (),
        Level::attention as *const (),
        Level::attention_int8 as *const (),
        Level::cross_attention_int8 as *const (),
        Level::normalize as *const (),
        Level::normalize_in_place as *const (),
        GroupSums::add_rows as *const (),
        Level::finish_rows as *const (),
        Level::quantize_rows as *const (),
        Level::silu as *const (),
        Level::f16_to_f32 as *const (),
        Level::f32_to_f16 as *const (),
        Level::round_to_f16 as *const (),
    ));
    let program = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
    let known = symbols(&program).filter(|symbol| symbol.contains("diffused_kernels") && symbol.contains("conv2d"));
    assert!(known.count() > 0, "the program is stripped: nothing can be found in it");
    assert_eq!(intrinsics(&program), Vec::<String>::new());
}

#[test]
fn an_intrinsic_would_be_found() {
    let symbol = |module: &str| ["_ZN4core9core", "_arch3x86", module, "17h0123E"].concat();
    let program = [symbol("7avx512f13_mm512_add_ps"), symbol("5xsave7_xgetbv"), String::new()].join("\0");
    assert_eq!(intrinsics(program.as_bytes()), [symbol("7avx512f13_mm512_add_ps")]);
}
