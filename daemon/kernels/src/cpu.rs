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

    /// The name that is printed, and that `DIFFUSED_CPU` takes in any case.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Dotprod => "dotprod",
            Level::Avx2 => "avx2",
            Level::Vnni => "avx512-vnni",
        }
    }

    /// The level of this name.
    pub fn named(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// The best level of this CPU.
    pub fn detected() -> Level {
        Level::ALL.into_iter().rev().find(|l| l.available()).unwrap_or(Level::Scalar)
    }

    /// The level that the program uses: the detected one, or the lower one that `DIFFUSED_CPU` names.
    pub fn current() -> Level {
        static CURRENT: OnceLock<Level> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let (detected, wanted) = (Level::detected(), std::env::var(VARIABLE).ok());
            wanted.and_then(|wanted| detected.lowered(&wanted).ok()).unwrap_or(detected)
        })
    }

    /// The level called `wanted` if that is `self` or a lower one that this CPU has; else the reason why not.
    fn lowered(self, wanted: &str) -> Result<Level, String> {
        let rank = |level: Level| Level::ALL.iter().position(|l| *l == level);
        match Level::named(wanted) {
            Some(level) if !level.available() => Err(format!("this CPU has no {level}")),
            Some(level) if rank(level) > rank(self) => Err(format!("it can only lower {self}")),
            Some(level) => Ok(level),
            None => {
                let names: Vec<_> = Level::ALL.into_iter().filter(|l| l.available()).map(Level::name).collect();
                Err(format!("the levels of this CPU are {}", names.join(", ")))
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was detected and what is used, for a human: `x86_64: avx512-vnni (detected), lowered to avx2 by DIFFUSED_CPU`.
pub fn describe() -> String {
    describe_choice(Level::detected(), std::env::var(VARIABLE).ok().as_deref())
}

fn describe_choice(detected: Level, wanted: Option<&str>) -> String {
    let start = format!("{}: {detected} (detected)", std::env::consts::ARCH);
    let Some(wanted) = wanted else { return start };
    match detected.lowered(wanted) {
        Ok(level) if level == detected => start,
        Ok(level) => format!("{start}, lowered to {level} by {VARIABLE}"),
        Err(reason) => format!("{start}, {VARIABLE}={wanted} ignored: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let best = Level::detected();
        assert_eq!(best.lowered("scalar"), Ok(Level::Scalar));
        assert_eq!(best.lowered(best.name()), Ok(best));
        if best != Level::Scalar {
            assert_eq!(Level::Scalar.lowered(best.name()), Err("it can only lower scalar".to_owned()));
        }
    }

    /// What is printed is what is taken, whatever the case.
    #[test]
    fn the_variable_takes_the_names_that_are_printed() {
        for level in Level::ALL {
            assert_eq!(Level::named(&level.to_string()), Some(level));
            assert_eq!(Level::named(&level.to_string().to_uppercase()), Some(level));
        }
        let best = Level::detected();
        assert_eq!(best.lowered(&best.to_string()), Ok(best));
        let error = best.lowered("quantum").unwrap_err();
        assert!(error.starts_with("the levels of this CPU are scalar"), "{error}");
        assert!(error.contains(best.name()), "{error}");
    }

    #[test]
    fn levels_of_another_architecture_are_not_available() {
        let foreign = if cfg!(target_arch = "aarch64") { Level::Avx2 } else { Level::Neon };
        assert!(!foreign.available());
        assert_eq!(Level::detected().lowered(foreign.name()), Err(format!("this CPU has no {foreign}")));
    }

    #[test]
    fn the_description_says_what_happened() {
        let (arch, best) = (std::env::consts::ARCH, Level::detected());
        let check = |wanted: Option<&str>, expect: &str| {
            assert_eq!(describe_choice(best, wanted), format!("{arch}: {best} (detected){expect}"));
        };
        check(None, "");
        check(Some(best.name()), "");
        if best != Level::Scalar {
            check(Some("Scalar"), ", lowered to scalar by DIFFUSED_CPU");
        }
        let names: Vec<_> = Level::ALL.into_iter().filter(|level| level.available()).map(Level::name).collect();
        let expect = format!(", DIFFUSED_CPU=x ignored: the levels of this CPU are {}", names.join(", "));
        check(Some("x"), &expect);
    }
}
