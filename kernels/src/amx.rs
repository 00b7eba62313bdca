//! AMX: two-dimensional registers (tiles) of 16 rows by 64 bytes, and the products of tiles.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. The compiler knows no
//! tiles, so nothing but this module's assembly ever touches them, and their contents last from block to block.

use std::arch::asm;
use std::marker::PhantomData;

/// Bytes of a tile's row, and rows of a tile.
pub(crate) const ROW: usize = 64;
pub(crate) const ROWS: usize = 16;

/// Whether the processor has tiles of eight-bit integers and bfloat16, and the system lets this process use
/// them. Asks the system for leave, which threads started later inherit.
pub(crate) fn present() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    let has = |word: u32, bits: u32| word & bits == bits;
    if __cpuid(0).eax < 7 || !has(__cpuid(1).ecx, OSXSAVE) {
        return false;
    }
    if !has(__cpuid_count(7, 0).edx, BF16_TILE_INT8) {
        return false;
    }
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: register 0 is always there.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the system has enabled XSAVE, as asked above.
    unsafe { enabled() & TILE_STATE == TILE_STATE && permitted() }
}

/// Linux grants the large tile state on request, to a whole process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: this request touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Shapes of the eight tiles: rows, and bytes of a row.
pub(crate) type Shapes = [(u8, u16); 8];

/// This thread's tiles, configured; dropped, they are given back, so that the system need not save them.
#[derive(Debug)]
pub(crate) struct Tiles(PhantomData<*mut ()>);

impl Tiles {
    /// Configures the tiles; whatever they held is gone.
    ///
    /// # Safety
    /// The machine has AMX ([`present`]), and no other `Tiles` is alive on this thread. Shapes are at most 16 rows of
    /// 64 bytes.
    pub(crate) unsafe fn new(shapes: &Shapes) -> Self {
        #[repr(C, align(64))]
        struct Config([u8; 64]);
        let mut config = Config([0; 64]);
        config.0[0] = 1; // the palette: 16 rows of 64 bytes at most
        for (tile, &(rows, bytes)) in shapes.iter().enumerate() {
            config.0[16 + 2 * tile..][..2].copy_from_slice(&bytes.to_le_bytes());
            config.0[48 + tile] = rows;
        }
        // SAFETY: the caller's promise; 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, so the machine has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// `rounds` rounds of four products of whole tiles of eight-bit integers, for the sake of their time.
///
/// # Safety
/// As [`Tiles::new`].
pub(crate) unsafe fn multiply_integers(rounds: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let _tiles = Tiles::new(&[(ROWS as u8, ROW as u16); 8]);
        asm!("tilezero tmm4", "tilezero tmm5", options(nostack, nomem));
        for _ in 0..rounds {
            asm!(
                "tdpbssd tmm0, tmm4, tmm5",
                "tdpbssd tmm1, tmm4, tmm5",
                "tdpbssd tmm2, tmm4, tmm5",
                "tdpbssd tmm3, tmm4, tmm5",
                options(nostack, nomem)
            );
        }
    }
}
