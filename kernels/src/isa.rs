//! Instruction sets: which one this process computes with.

use std::sync::OnceLock;

/// An instruction set a kernel exists for, slowest first. Each has all of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the oracle every other path is tested against.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AMX tiles of eight-bit integers and bfloat16, with AVX-512 BF16 beside them.
    Amx,
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The fastest set this machine has, detected once per process; `PITH_ISA=scalar|avx2|avx512|amx`
    /// forces one (a set the machine lacks, or an unknown name, is an error text).
    pub fn select() -> Result<Self, String> {
        static SELECTED: OnceLock<Result<Isa, String>> = OnceLock::new();
        SELECTED
            .get_or_init(|| match std::env::var("PITH_ISA") {
                Ok(name) => Self::from_name(&name).map_err(|error| format!("PITH_ISA={error}")),
                Err(std::env::VarError::NotPresent) => Ok(Self::detect()),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(format!("PITH_ISA is not text; use {}", names()))
                }
            })
            .clone()
    }

    /// The fastest set this machine has, whatever the environment says.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| match () {
            () if !avx2_present() => Self::Scalar,
            () if !avx512_present() => Self::Avx2,
            () if !amx_present() => Self::Avx512,
            () => Self::Amx,
        })
    }

    /// The sets this machine has, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::detect())
    }

    /// Lower-case name, as printed at start.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// The set called `name`, if this machine has it; an empty name means the fastest. The error begins with `name`.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let wanted = name.trim().to_ascii_lowercase();
        if wanted.is_empty() {
            return Ok(Self::detect());
        }
        let asked = Self::ALL.into_iter().find(|isa| isa.name() == wanted);
        let asked = asked.ok_or_else(|| format!("{name} is unknown; use {}", names()))?;
        if asked > Self::detect() {
            let lacks = match asked {
                Self::Amx => "AMX (int8 and bf16), its use in this system, or AVX-512 BF16",
                Self::Avx512 => "AVX-512 F, BW, DQ, VL or VNNI",
                Self::Avx2 | Self::Scalar => "AVX2, FMA or F16C",
            };
            return Err(format!("{name}: this machine lacks {lacks}"));
        }
        Ok(asked)
    }

    /// Calls `body` compiled for this set's registers: plain loops in it become as wide as they are. What it calls
    /// must be inlined into it (`#[inline(always)]`) to take part, and so must `body` itself where it is long. Results are the same on every set: products and sums
    /// are fused only where `mul_add` says so.
    #[inline]
    pub fn vectorize<R>(self, body: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2<R>(body: impl FnOnce() -> R) -> R {
                body()
            }
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512<R>(body: impl FnOnce() -> R) -> R {
                body()
            }
            if self.avx512() {
                // SAFETY: the machine has these.
                return unsafe { avx512(body) };
            }
            if self.avx2() {
                // SAFETY: as above.
                return unsafe { avx2(body) };
            }
        }
        body()
    }

    /// Whether to take the AVX2 path, or one above it. Asks the machine again (one cached load), because a caller
    /// may name a set without having detected it and safe code must stay sound.
    pub(crate) fn avx2(self) -> bool {
        self >= Self::Avx2 && Self::detect() >= Self::Avx2
    }

    /// As [`Isa::avx2`], for AVX-512.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn avx512(self) -> bool {
        self >= Self::Avx512 && Self::detect() >= Self::Avx512
    }

    /// As [`Isa::avx2`], for AMX.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn amx(self) -> bool {
        self >= Self::Amx && Self::detect() >= Self::Amx
    }
}

fn names() -> String {
    Isa::ALL.map(Isa::name).join("|")
}

#[cfg(target_arch = "x86_64")]
fn avx2_present() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn avx512_present() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn amx_present() -> bool {
    is_x86_feature_detected!("avx512bf16") && crate::amx::present()
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2_present() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512_present() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn amx_present() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn names_round_trip_and_unknown_ones_are_errors() {
        for isa in Isa::available() {
            assert_eq!(Isa::from_name(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::from_name(" Scalar "), Ok(Isa::Scalar));
        assert_eq!(Isa::from_name(""), Ok(Isa::detect()));
        let error = Isa::from_name("avx9").unwrap_err();
        assert!(error.contains("avx9") && error.contains("scalar|avx2|avx512|amx"), "{error}");
    }

    #[test]
    fn a_set_the_machine_lacks_is_refused() {
        assert_eq!(Isa::Avx2.avx2(), Isa::detect() >= Isa::Avx2);
        assert!(!Isa::Scalar.avx2());
        for isa in Isa::ALL.into_iter().filter(|isa| *isa > Isa::detect()) {
            let error = Isa::from_name(isa.name()).unwrap_err();
            assert!(error.starts_with(isa.name()) && error.contains("lacks"), "{error}");
        }
    }
}
