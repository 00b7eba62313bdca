//! Instruction sets: which one this process computes with.

use std::sync::OnceLock;

/// An instruction set a kernel exists for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the oracle every other path is tested against.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
}

impl Isa {
    /// The fastest set this machine has, detected once per process; `PITH_ISA=scalar|avx2`
    /// forces one (a set the machine lacks, or an unknown name, is an error text).
    pub fn select() -> Result<Self, String> {
        static SELECTED: OnceLock<Result<Isa, String>> = OnceLock::new();
        SELECTED
            .get_or_init(|| match std::env::var("PITH_ISA") {
                Ok(name) => Self::from_name(&name),
                Err(std::env::VarError::NotPresent) => Ok(Self::detect()),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err("PITH_ISA is not text; use scalar or avx2".to_owned())
                }
            })
            .clone()
    }

    /// The fastest set this machine has, whatever the environment says.
    pub fn detect() -> Self {
        if avx2_present() { Self::Avx2 } else { Self::Scalar }
    }

    /// Lower-case name, as printed at start.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
        }
    }

    /// The set called `name`, if this machine has it; an empty name means the fastest.
    fn from_name(name: &str) -> Result<Self, String> {
        let asked = match name.trim().to_ascii_lowercase().as_str() {
            "" => return Ok(Self::detect()),
            "scalar" => Self::Scalar,
            "avx2" => Self::Avx2,
            _ => return Err(format!("PITH_ISA={name} is unknown; use scalar or avx2")),
        };
        if asked > Self::detect() {
            return Err(format!("PITH_ISA={name}: this machine lacks AVX2, FMA or F16C"));
        }
        Ok(asked)
    }

    /// Whether to take the AVX2 path. Asks the machine again (one cached load), because a caller
    /// may name [`Isa::Avx2`] without having detected it and safe code must stay sound.
    pub(crate) fn avx2(self) -> bool {
        self == Self::Avx2 && avx2_present()
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2_present() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2_present() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn names_round_trip_and_unknown_ones_are_errors() {
        assert_eq!(Isa::from_name("scalar"), Ok(Isa::Scalar));
        assert_eq!(Isa::from_name(" Scalar "), Ok(Isa::Scalar));
        assert_eq!(Isa::from_name(""), Ok(Isa::detect()));
        assert_eq!(Isa::from_name(Isa::detect().name()), Ok(Isa::detect()));
        let error = Isa::from_name("avx9").unwrap_err();
        assert!(error.contains("avx9") && error.contains("scalar"), "{error}");
    }

    #[test]
    fn a_set_the_machine_lacks_is_refused() {
        if Isa::detect() < Isa::Avx2 {
            assert!(Isa::from_name("avx2").is_err());
            assert!(!Isa::Avx2.avx2());
        } else {
            assert!(Isa::Avx2.avx2() && !Isa::Scalar.avx2());
        }
    }
}
