// Products of four warps at once, from shared memory, as sm_90a has them (PTX ISA, wgmma). The host does the same by what
// descriptors say (`host::group_mma`), so that all but the waiting is checked there.
//
// Operands in shared memory lie in panels of 64 columns: rows of 128 bytes whose chunks of sixteen bytes are swapped as
// `crosswise<64>` does (the 128-byte swizzle), a panel after the other, all at multiples of 1,024 bytes.
#pragma once
#include "attention.cuh"

// Elsewhere the functions are empty, and no launcher asks for what uses them.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PITH_WARPGROUP 1
#endif

static const u32 PANEL_COLUMNS = 64;
static const u32 ROW_BYTES = 128;
static const u32 EIGHT_ROWS = 8 * ROW_BYTES;

// Where a chunk (eight numbers) of a matrix of ROWS rows lies.
template <u32 ROWS>
DEVICE u32 panel_offset(u32 row, u32 chunk) {
    return chunk / 8 * (ROWS * ROW_BYTES) + crosswise<PANEL_COLUMNS>(row, chunk % 8);
}

// Where in shared memory something lies.
DEVICE u32 shared_address(const void* at) {
#ifdef __CUDACC__
    return (u32)__cvta_generic_to_shared(at);
#else
    return host::shared_address(at);
#endif
}

// Names a matrix in panels: `address` of its first number, and, in bytes, what lies between groups of eight rows (`stride`) and,
// where columns are summed into columns (`V`), between panels (`leading`).
DEVICE u64 descriptor(u32 address, u32 leading, u32 stride) {
    const u64 SWIZZLE_128 = 1;
    return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | SWIZZLE_128 << 62;
}

// The sixteen columns from `16 step` on, of all rows from `row` on, as they lie: rows of queries, or of keys.
template <u32 ROWS>
DEVICE u64 by_rows(u32 matrix, u32 row, u32 step) {
    u32 panel = step / 4 * (ROWS * ROW_BYTES);
    return descriptor(matrix + panel + row * ROW_BYTES + step % 4 * 32, 16, EIGHT_ROWS);
}

// The sixteen rows from `16 step` on, of all columns, to be summed over: values.
template <u32 ROWS>
DEVICE u64 by_columns(u32 matrix, u32 step) {
    return descriptor(matrix + step * 16 * ROW_BYTES, ROWS * ROW_BYTES, EIGHT_ROWS);
}

// What this thread has written to shared memory comes before what products read.
DEVICE void fence_shared() {
#if defined(PITH_WARPGROUP) && defined(__CUDACC__)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Registers and shared memory are ready for the products that follow.
DEVICE void begin_products() {
#if defined(PITH_WARPGROUP) && defined(__CUDACC__)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Waits for all products begun. `results` are what they write: nothing reads them earlier.
template <u32 BLOCKS>
DEVICE void finish_products(float (&results)[BLOCKS][4]) {
#if defined(PITH_WARPGROUP) && defined(__CUDACC__)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    UNROLL for (u32 block = 0; block < BLOCKS; block++) {
        UNROLL for (u32 part = 0; part < 4; part++) asm volatile("" : "+f"(results[block][part])::"memory");
    }
#else
    (void)results;
#endif
}

#define FOUR(d, at) "+f"(d[at][0]), "+f"(d[at][1]), "+f"(d[at][2]), "+f"(d[at][3])
#define THIRTY_TWO(d, at)                                                                                             \
    FOUR(d, at), FOUR(d, at + 1), FOUR(d, at + 2), FOUR(d, at + 3), FOUR(d, at + 4), FOUR(d, at + 5), FOUR(d, at + 6), \
        FOUR(d, at + 7)
#define NAMES_32                                                                                             \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64                                                                                              \
    NAMES_32                                                                                                  \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
    "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// Begins d (+)= a b^T, `a` 64 rows (sixteen to a warp) and `b` 128 rows, both `by_rows`; sums stand as those of `mma_bf16`.
DEVICE void begin_mma(float (&d)[16][4], u64 a, u64 b, bool add) {
#ifdef PITH_WARPGROUP
#ifdef __CUDACC__
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, %64, %65, add, 1, 1, 0, 0;\n}"
        : THIRTY_TWO(d, 0), THIRTY_TWO(d, 8)
        : "l"(a), "l"(b), "r"((u32)add));
#else
    host::group_mma(d, 16, nullptr, a, b, false, add);
#endif
#endif
}

// Begins d += a b, `a` in registers as the left operand of `mma_bf16`, `b` 128 columns, `by_columns`.
DEVICE void begin_mma(float (&d)[16][4], const u32 (&a)[4], u64 b) {
#ifdef PITH_WARPGROUP
#ifdef __CUDACC__
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : THIRTY_TWO(d, 0), THIRTY_TWO(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#else
    host::group_mma(d, 16, a, 0, b, true, true);
#endif
#endif
}

// The same, `b` 64 columns.
DEVICE void begin_mma(float (&d)[8][4], const u32 (&a)[4], u64 b) {
#ifdef PITH_WARPGROUP
#ifdef __CUDACC__
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : THIRTY_TWO(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#else
    host::group_mma(d, 8, a, 0, b, true, true);
#endif
#endif
}
