//! Every vector instruction is where it belongs, inside the loops: one that the compiler left as a function of its own costs
//! a call and two trips through memory for each sixteen values (closures around vectors are what usually does it).

use std::hint::black_box;

use diffused_kernels::attention::{attention_at, attention_int8_at};
use diffused_kernels::matmul::{conv2d_at, linear_at};
use diffused_kernels::norm::{GroupSums, group_norm_apply_at, group_norm_in_place_at, layer_norm_at};
use diffused_kernels::rows::{f16_to_f32_at, f32_to_f16_at, quantize_rows_at, silu_at};

/// Modules of `core::arch` that hold the kernels' instructions.
const MODULES: [&str; 8] = ["avx", "avx2", "avx512f", "avx512bw", "avx512vnni", "fma", "f16c", "neon"];

/// Names of intrinsics among the symbols of a program.
fn intrinsics(program: &[u8]) -> Vec<String> {
    let symbols = program.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    let symbols = symbols.filter(|symbol| symbol.starts_with("_ZN") || symbol.starts_with("_R"));
    let vector = |symbol: &&str| {
        symbol.contains("core_arch")
            && MODULES.iter().any(|module| symbol.contains(&format!("{}{module}", module.len())))
    };
    symbols.filter(vector).map(str::to_owned).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "without optimisation nothing is inlined")]
fn no_intrinsic_is_a_function_of_its_own() {
    black_box((
        linear_at as *const (),
        conv2d_at as *const (),
        attention_at as *const (),
        attention_int8_at as *const (),
        GroupSums::add_rows_at as *const (),
    ));
    black_box((group_norm_apply_at as *const (), group_norm_in_place_at as *const (), layer_norm_at as *const ()));
    black_box((
        quantize_rows_at as *const (),
        silu_at as *const (),
        f16_to_f32_at as *const (),
        f32_to_f16_at as *const (),
    ));
    let program = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
    assert_eq!(intrinsics(&program), Vec::<String>::new());
}

#[test]
fn an_intrinsic_would_be_found() {
    let symbol = |module: &str| ["_ZN4core9core", "_arch3x86", module, "17h0123E"].concat();
    let program = [symbol("7avx512f13_mm512_add_ps"), symbol("5xsave7_xgetbv"), String::new()].join("\0");
    assert_eq!(intrinsics(program.as_bytes()), [symbol("7avx512f13_mm512_add_ps")]);
}
