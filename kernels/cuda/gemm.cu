// Products of bfloat16 matrices, sums in f32, by mma.sync: where the vendor's library is missing or not wanted.
//
// A block computes a tile of the result. Its operands pass through shared memory in steps of 32 columns, copied while the
// steps before are computed. A number of the result is one chain of sums over the columns in their order, in every kernel
// here: its bits depend neither on the tile's shape nor on the other rows.
#include "matrix.cuh"

// Columns of a step, in chunks of sixteen bytes; steps in shared memory at once.
static const u32 STEP = 32, CHUNKS = STEP / 8, STAGES = 4;

// Where a chunk of a row lies: two rows share 128 bytes, and eight rows' chunks of one column must lie in eight different
// sixteenths of these for a matrix to be loaded in one go.
DEVICE u32 place(u32 row, u32 chunk) { return row * STEP + (chunk ^ (row / 2 % 4)) * 8; }

// Begins to copy columns `k` on of ROWS rows from `first` on. Zeros beyond the matrix.
template <u32 ROWS, u32 THREADS>
DEVICE void copy_rows(u16* shared, const u16* from, u32 first, u32 rows, u32 k, u32 columns) {
    UNROLL for (u32 at = 0; at < ROWS * CHUNKS / THREADS; at++) {
        u32 index = at * THREADS + threadIdx.x, row = index / CHUNKS, chunk = index % CHUNKS, column = k + 8 * chunk;
        bool valid = first + row < rows && column < columns;
        const u16* source = valid ? from + (u64)(first + row) * columns + column : from;
        copy_async16(shared + place(row, chunk), source, valid);
    }
}

// Two neighbours of a row of the result; the second may lie beyond it.
DEVICE void store_pair(void* out, u64 at, float left, float right, bool both, bool together, u32 kind) {
    if (together && both && kind == OUT_BF16) {
        *reinterpret_cast<u32*>(reinterpret_cast<u16*>(out) + at) = pack_bf16(left, right);
        return;
    }
    store_product(out, at, left, kind);
    if (both) store_product(out, at + 1, right, kind);
}

// out[m][n] (+)= sum of a[m][k] b[n][k]; rows of `a` and `b` are `inputs` long (a multiple of 8) without gaps, those of `out`
// `stride` apart. Tiles are HEIGHT by WIDTH, by DOWN by ACROSS warps; blockIdx.x counts tiles downwards, so that blocks
// side by side share rows of `b`. Shared memory: 256 (HEIGHT + WIDTH) bytes.
template <u32 HEIGHT, u32 WIDTH, u32 DOWN, u32 ACROSS>
DEVICE void gemm(const u16* a, const u16* b, void* out, u32 rows, u32 outputs, u32 inputs, u32 stride, u32 kind) {
    const u32 THREADS = DOWN * ACROSS * WARP;
    // Fragments of a warp: 16 rows, and 8 columns.
    const u32 TALL = HEIGHT / DOWN / 16, WIDE = WIDTH / ACROSS / 8;
    SHARED(u16, shared);
    u16 *a_shared = shared, *b_shared = shared + STAGES * HEIGHT * STEP;
    u32 first_row = blockIdx.x * HEIGHT, first_output = blockIdx.y * WIDTH;
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 warp_row = warp / ACROSS * (16 * TALL), warp_output = warp % ACROSS * (8 * WIDE);
    float sums[TALL][WIDE][4];
    UNROLL for (u32 y = 0; y < TALL; y++) {
        UNROLL for (u32 x = 0; x < WIDE; x++) {
            UNROLL for (u32 at = 0; at < 4; at++) sums[y][x][at] = 0.0f;
        }
    }
    u32 steps = (inputs + STEP - 1) / STEP;
    UNROLL for (u32 step = 0; step < STAGES - 1; step++) {
        if (step < steps) {
            copy_rows<HEIGHT, THREADS>(a_shared + step * HEIGHT * STEP, a, first_row, rows, step * STEP, inputs);
            copy_rows<WIDTH, THREADS>(b_shared + step * WIDTH * STEP, b, first_output, outputs, step * STEP, inputs);
        }
        copy_async_commit();
    }
    for (u32 step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        // All see this step's copies, and none still reads the stage that is filled next.
        __syncthreads();
        u32 next = step + STAGES - 1;
        if (next < steps) {
            u32 stage = next % STAGES;
            copy_rows<HEIGHT, THREADS>(a_shared + stage * HEIGHT * STEP, a, first_row, rows, next * STEP, inputs);
            copy_rows<WIDTH, THREADS>(b_shared + stage * WIDTH * STEP, b, first_output, outputs, next * STEP, inputs);
        }
        copy_async_commit();
        const u16 *a_stage = a_shared + step % STAGES * HEIGHT * STEP, *b_stage = b_shared + step % STAGES * WIDTH * STEP;
        UNROLL for (u32 half = 0; half < STEP / 16; half++) {
            u32 left[TALL][4], right[WIDE][2];
            UNROLL for (u32 y = 0; y < TALL; y++) {
                u32 row = warp_row + 16 * y + lane % 16;
                load_matrices(left[y], a_stage + place(row, 2 * half + lane / 16));
            }
            UNROLL for (u32 x = 0; x < WIDE; x += 2) {
                u32 row = warp_output + 8 * x + lane / 16 * 8 + lane % 8;
                u32 pair[4];
                load_matrices(pair, b_stage + place(row, 2 * half + lane / 8 % 2));
                right[x][0] = pair[0], right[x][1] = pair[1];
                right[x + 1][0] = pair[2], right[x + 1][1] = pair[3];
            }
            UNROLL for (u32 y = 0; y < TALL; y++) {
                UNROLL for (u32 x = 0; x < WIDE; x++) mma_bf16(sums[y][x], left[y], right[x]);
            }
        }
    }
    bool together = stride % 2 == 0 && (u64)out % 4 == 0;
    UNROLL for (u32 y = 0; y < TALL; y++) {
        UNROLL for (u32 x = 0; x < WIDE; x++) {
            u32 row = first_row + warp_row + 16 * y + lane / 4;
            u32 output = first_output + warp_output + 8 * x + lane % 4 * 2;
            if (output >= outputs) continue;
            UNROLL for (u32 lower = 0; lower < 2; lower++) {
                if (row + 8 * lower >= rows) continue;
                u64 at = (u64)(row + 8 * lower) * stride + output;
                store_pair(out, at, sums[y][x][2 * lower], sums[y][x][2 * lower + 1], output + 1 < outputs, together, kind);
            }
        }
    }
}

#define GEMM(name, height, width, down, across, blocks)                                                                   \
    KERNEL(BOUNDS(down * across * 32, blocks) name)(const u16* __restrict__ a, const u16* __restrict__ b,                \
                                                    void* __restrict__ out, u32 rows, u32 outputs, u32 inputs,           \
                                                    u32 stride, u32 kind) {                                              \
        gemm<height, width, down, across>(a, b, out, rows, outputs, inputs, stride, kind);                               \
    }                                                                                                                    \
    REGISTER(name)

GEMM(gemm_128, 128, 128, 2, 4, 2)
GEMM(gemm_64, 64, 64, 2, 2, 4)
GEMM(gemm_32, 32, 32, 2, 2, 4)
