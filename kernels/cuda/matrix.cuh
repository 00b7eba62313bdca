// How the rows of a weight matrix lie in a device's memory, and what kernels make of them.
//
// A row is a sequence of chunks of 64 bytes, shared by four lanes with 16 bytes each, so that a lane's load is what the
// tensor cores want of it. With q = which of the four lanes, and words of four bytes:
//
//   Bf16   32 weights in their order; lane q has 8 q to 8 q + 7
//   Q4     128 weights in four groups of 32; word j of lane q has weights 8 q to 8 q + 7 of group j, weight 2 p of these in
//          nibble p, weight 2 p + 1 in nibble p + 4
//   Q8...  64 weights; word j of lane q has weights 16 j + 4 q to 16 j + 4 q + 3, signed bytes
//
// Scales (and offsets) lie apart, f16, row by row, as many for each chunk:
//
//   Q4        (scale, offset) for each group of 32: 16 bytes
//   Q8        scale for each 32: 4 bytes
//   Q8Fine    scale for each 16: 8 bytes
//   Q8Offset  (scale, offset) for each 32: 8 bytes
//
// A weight is scale * code + offset. The last chunk is filled up with zeros, but for Bf16, whose rows have no gaps.
// src/device/matrix/format.rs writes all this and says why.
#pragma once
#include "device.cuh"

// Before a loop: how many of its rounds become one.
#ifdef __CUDACC__
#define PRAGMA(text) _Pragma(#text)
#define UNROLL_BY(rounds) PRAGMA(unroll(rounds))
#else
#define UNROLL_BY(rounds)
#endif

// Eight bytes at once, aligned so.
struct alignas(8) u32x2 {
    u32 at[2];
};

DEVICE u32x2 load8(const void* from) { return *reinterpret_cast<const u32x2*>(from); }
DEVICE void store8(void* to, u32x2 value) { *reinterpret_cast<u32x2*>(to) = value; }

// Bytes of a chunk.
static const u32 CHUNK_BYTES = 64;

// Sixteen bytes that are read once: they are not kept near. Zeros where `valid` is false, whose address is not read.
DEVICE u32x4 load16_once(const void* from, bool valid) {
#ifdef __CUDACC__
    u32x4 got;
    asm("{\n"
        ".reg .pred there;\n"
        "setp.ne.u32 there, %5, 0;\n"
        "mov.u32 %0, 0;\n"
        "mov.u32 %1, 0;\n"
        "mov.u32 %2, 0;\n"
        "mov.u32 %3, 0;\n"
        "@there ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
        "}"
        : "=&r"(got.at[0]), "=&r"(got.at[1]), "=&r"(got.at[2]), "=&r"(got.at[3])
        : "l"(from), "r"((u32)valid));
    return got;
#else
    return valid ? load16(from) : u32x4{};
#endif
}

// Differences of two pairs of bfloat16, each rounded to bfloat16.
DEVICE u32 subtract_bf16(u32 from, u32 what) {
#ifdef __CUDACC__
    u32 difference;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(difference) : "r"(what), "r"(0xbf80bf80u), "r"(from));
    return difference;
#else
    return pack_bf16(low_bf16(from) - low_bf16(what), high_bf16(from) - high_bf16(what));
#endif
}

DEVICE float low_f16(u32 packed) { return to_float(f16{(u16)packed}); }
DEVICE float high_f16(u32 packed) { return to_float(f16{(u16)(packed >> 16)}); }

// What is added to four-bit codes as `nibbles` reads them.
static const float NIBBLE_BIAS = 128.0f;

// Weights 2 p and 2 p + 1 of a word of four-bit codes, as bfloat16 and 128 too large: a code in the low bits of 128's
// fraction is one bit operation, a conversion would be several.
DEVICE u32 nibbles(u32 word, u32 p) {
#ifdef __CUDACC__
    u32 codes;
    // (a and b) or c, which the compiler would make two.
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(codes) : "r"(word >> (4 * p)), "n"(0x000f000f), "n"(0x43004300));
    return codes;
#else
    return ((word >> (4 * p)) & 0x000f000fu) | 0x43004300u;
#endif
}

// Weights 2 p and 2 p + 1 of a word of signed bytes, as bfloat16, exact. In the fraction of 128 the low seven bits of a
// byte are 128 more than they are; its sign bit there makes 256 of 128, so that the difference is the byte.
DEVICE u32 signed_bytes(u32 word, u32 p) {
#ifdef __CUDACC__
    u32 spread = __byte_perm(word, 0x43434343u, p == 0 ? 0x4140 : 0x4342);
#else
    u32 pair = word >> (16 * p);
    u32 spread = (pair & 0xff) | (pair & 0xff00) << 8 | 0x43004300u;
#endif
    return subtract_bf16(spread & 0xff7fff7fu, spread & 0xff80ff80u);
}

// The formats: CHUNK weights of a chunk, WORD of a word, SCALE_BYTES beside a chunk. `weights` takes a word apart; word `j`
// of lane `q` begins at weight CHUNK / 4 * j + WORD * q of the chunk.
struct Q4 {
    static const u32 CHUNK = 128, WORD = 8, SCALE_BYTES = 16;

    DEVICE void weights(u32 word, const u8* scales, u32 j, float (&to)[WORD]) {
        u32 pair = reinterpret_cast<const u32*>(scales)[j];
        float scale = low_f16(pair), offset = high_f16(pair);
        UNROLL for (u32 p = 0; p < 4; p++) {
            u32 codes = nibbles(word, p);
            to[2 * p] = scale * (low_bf16(codes) - NIBBLE_BIAS) + offset;
            to[2 * p + 1] = scale * (high_bf16(codes) - NIBBLE_BIAS) + offset;
        }
    }
};

// Eight-bit codes: scales for GROUP weights, with offsets or without.
template <u32 GROUP, bool OFFSETS>
struct EightBit {
    static const u32 CHUNK = 64, WORD = 4, SCALE_BYTES = CHUNK / GROUP * (OFFSETS ? 4 : 2);

    DEVICE void weights(u32 word, const u8* scales, u32 j, float (&to)[WORD]) {
        const f16* at = reinterpret_cast<const f16*>(scales) + 16 * j / GROUP * (OFFSETS ? 2 : 1);
        float scale = to_float(at[0]), offset = OFFSETS ? to_float(at[OFFSETS]) : 0.0f;
        UNROLL for (u32 p = 0; p < 2; p++) {
            u32 codes = signed_bytes(word, p);
            to[2 * p] = scale * low_bf16(codes) + offset;
            to[2 * p + 1] = scale * high_bf16(codes) + offset;
        }
    }
};

typedef EightBit<32, false> Q8;
typedef EightBit<16, false> Q8Fine;
typedef EightBit<32, true> Q8Offset;

// Chunks of a row.
template <class FORMAT>
DEVICE u32 row_chunks(u32 inputs) {
    return (inputs + FORMAT::CHUNK - 1) / FORMAT::CHUNK;
}

// What becomes of a product's sums: `ProductOut` in the order of its declaration.
static const u32 OUT_BF16 = 0, OUT_F32 = 1, OUT_ADD_F32 = 2;

DEVICE void store_product(void* out, u64 at, float value, u32 kind) {
    if (kind == OUT_BF16) {
        reinterpret_cast<bf16*>(out)[at] = to_bf16(value);
    } else {
        float* to = reinterpret_cast<float*>(out) + at;
        *to = kind == OUT_ADD_F32 ? *to + value : value;
    }
}
