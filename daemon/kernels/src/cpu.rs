//! Which instructions this CPU has: detected once, and lowered, never raised, by the environment variable `DIFFUSED_CPU`.
//!
//! All levels give the same bits, so the choice is about speed alone; lowering it is for tests and for finding a faulty CPU.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that lowers the level.
pub const VARIABLE: &str = "DIFFUSED_CPU";

/// A set of instructions that the kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Plain Rust: the specification.
    Scalar,
    /// ARM's Advanced SIMD, which every 64-bit ARM has.
    Neon,
    /// NEON with SDOT (Cortex-A55, A76 and newer).
    Dotprod,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 with VNNI.
    Vnni,
}

impl Level {
    /// Every level, weakest first within an architecture.
    pub const ALL: [Level; 5] = [Level::Scalar, Level::Neon, Level::Dotprod, Level::Avx2, Level::Vnni];

    /// Whether this CPU can run it.
    pub fn available(self) -> bool {
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => Level::Neon.available() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                use std::arch::is_x86_feature_detected as has;
                has!("avx2") && has!("fma") && has!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => {
                use std::arch::is_x86_feature_detected as has;
                Level::Avx2.available() && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni")
            }
            _ => false,
        }
    }

    /// The name, as `DIFFUSED_CPU` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Dotprod => "dotprod",
            Level::Avx2 => "avx2",
            Level::Vnni => "vnni",
        }
    }

    /// The best level of this CPU.
    pub fn detected() -> Level {
        Level::ALL.into_iter().rev().find(|l| l.available()).unwrap_or(Level::Scalar)
    }

    /// `self`, or the level called `wanted` if that one is lower and this CPU has it.
    fn lowered(self, wanted: Option<&str>) -> Level {
        let Some(wanted) = wanted else { return self };
        let rank = |level: Level| Level::ALL.iter().position(|l| *l == level);
        let found = Level::ALL.into_iter().find(|l| l.name() == wanted && l.available());
        found.filter(|l| rank(*l) < rank(self)).unwrap_or(self)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Level::Vnni => "avx512-vnni",
            other => other.name(),
        })
    }
}

/// The level that the kernels use.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| Level::detected().lowered(std::env::var(VARIABLE).ok().as_deref()))
}

/// What was detected and what is used, for a human: `x86_64: avx512-vnni (detected), lowered to avx2 by DIFFUSED_CPU`.
pub fn describe() -> String {
    let wanted = std::env::var(VARIABLE).ok();
    describe_choice(Level::detected(), level(), wanted.as_deref())
}

fn describe_choice(detected: Level, used: Level, wanted: Option<&str>) -> String {
    let start = format!("{}: {detected} (detected)", std::env::consts::ARCH);
    match wanted {
        None => start,
        Some(_) if used != detected => format!("{start}, lowered to {used} by {VARIABLE}"),
        Some(wanted) if wanted == detected.name() => start,
        Some(wanted) => {
            format!("{start}, {VARIABLE}={wanted} ignored: it can only name a lower level that this CPU has")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let best = Level::detected();
        assert_eq!(best.lowered(None), best);
        assert_eq!(best.lowered(Some("scalar")), Level::Scalar);
        assert_eq!(best.lowered(Some("quantum")), best);
        assert_eq!(Level::Scalar.lowered(Some(best.name())), Level::Scalar);
    }

    #[test]
    fn levels_of_another_architecture_are_not_available() {
        let foreign = if cfg!(target_arch = "aarch64") { Level::Avx2 } else { Level::Neon };
        assert!(!foreign.available());
        assert_eq!(Level::detected().lowered(Some(foreign.name())), Level::detected());
    }

    #[test]
    fn the_description_says_what_happened() {
        let arch = std::env::consts::ARCH;
        let check = |used, wanted, expect: &str| {
            assert_eq!(describe_choice(Level::Vnni, used, wanted), format!("{arch}: avx512-vnni (detected){expect}"));
        };
        check(Level::Vnni, None, "");
        check(Level::Vnni, Some("vnni"), "");
        check(Level::Avx2, Some("avx2"), ", lowered to avx2 by DIFFUSED_CPU");
        check(Level::Vnni, Some("x"), ", DIFFUSED_CPU=x ignored: it can only name a lower level that this CPU has");
    }
}
