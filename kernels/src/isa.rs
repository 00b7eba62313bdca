//! Instruction sets: which one this process computes with.

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
    pub fn select() -> Result<Self, String> { unimplemented!() }
    /// The fastest set this machine has, whatever the environment says.
    pub fn detect() -> Self { unimplemented!() }
    /// Lower-case name, as printed at start.
    pub fn name(self) -> &'static str { unimplemented!() }
}
