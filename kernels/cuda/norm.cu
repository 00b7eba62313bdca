// Norms and biases. A block has one row; its threads take groups of eight, the first group by the first thread and so on,
// whether the row is aligned or not, so that a row's sum has the same bits wherever it lies.
#include "device.cuh"

static const u32 MOST = 1024;

// The sum of a row's squares, the same bits in every thread.
DEVICE float square_sum(const float* row, u32 width, bool wide, float* scratch) {
    float sum = 0.0f;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8];
        load8(x, row + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) sum += x[i] * x[i];
    }
    return block_sum(sum, scratch);
}

// out[row] = input[rows_of[row]] / sqrt(mean of squares + eps) * weight; rows in order where `rows_of` is null, the last one
// of `input_rows` for a number beyond it.
KERNEL(BOUNDS(MOST, 1) rms_norm)(const float* __restrict__ input, const u32* __restrict__ rows_of, u32 input_rows,
                                 const float* __restrict__ weight, u32 width, float eps, u32 wide,
                                 bf16* __restrict__ out) {
    SHARED(float, scratch);
    u32 from = rows_of == nullptr ? blockIdx.x : rows_of[blockIdx.x];
    if (from >= input_rows) from = input_rows - 1;
    const float* row = input + (u64)from * width;
    float factor = 1.0f / sqrtf(square_sum(row, width, wide, scratch) / (float)width + eps);
    bf16* to = out + (u64)blockIdx.x * width;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8], w[8];
        load8(x, row + at, width - at, wide);
        load8(w, weight + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) x[i] = x[i] * factor * w[i];
        store8(to + at, x, width - at, wide);
    }
}
REGISTER(rms_norm)

// stream[row] += added[row] / sqrt(mean of its squares + eps) * weight
KERNEL(BOUNDS(MOST, 1) rms_norm_add)(const float* __restrict__ added, const float* __restrict__ weight, u32 width,
                                     float eps, u32 wide, float* __restrict__ stream) {
    SHARED(float, scratch);
    const float* row = added + (u64)blockIdx.x * width;
    float factor = 1.0f / sqrtf(square_sum(row, width, wide, scratch) / (float)width + eps);
    float* to = stream + (u64)blockIdx.x * width;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8], w[8], sum[8];
        load8(x, row + at, width - at, wide);
        load8(w, weight + at, width - at, wide);
        load8(sum, to + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) sum[i] += x[i] * factor * w[i];
        store8(to + at, sum, width - at, wide);
    }
}
REGISTER(rms_norm_add)

// (input[row] - mean) / sqrt(variance + eps) * weight + bias, to `out` and, unless it is null, to `stream_out`, which may
// be the input itself.
KERNEL(BOUNDS(MOST, 1) layer_norm)(const float* input, const float* __restrict__ weight, const float* __restrict__ bias,
                                   u32 width, float eps, u32 wide, float* stream_out, bf16* __restrict__ out) {
    SHARED(float, scratch);
    const float* row = input + (u64)blockIdx.x * width;
    float sum = 0.0f;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8];
        load8(x, row + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) sum += x[i];
    }
    float mean = block_sum(sum, scratch) / (float)width;
    // Squares about the mean, in a second pass: of a row far from 0 nothing cancels.
    float squares = 0.0f;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8];
        load8(x, row + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) {
            float off = at + i < width ? x[i] - mean : 0.0f;
            squares += off * off;
        }
    }
    float factor = 1.0f / sqrtf(block_sum(squares, scratch + blockDim.x / WARP) / (float)width + eps);
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8], w[8], b[8];
        u32 count = width - at;
        load8(x, row + at, count, wide);
        load8(w, weight + at, count, wide);
        load8(b, bias + at, count, wide);
        UNROLL for (u32 i = 0; i < 8; i++) x[i] = (x[i] - mean) * factor * w[i] + b[i];
        if (stream_out != nullptr) store8(stream_out + (u64)blockIdx.x * width + at, x, count, wide);
        store8(out + (u64)blockIdx.x * width + at, x, count, wide);
    }
}
REGISTER(layer_norm)

// values[row] /= its length; a row of zeros stays.
KERNEL(BOUNDS(MOST, 1) unit_rows)(float* __restrict__ values, u32 width, u32 wide) {
    SHARED(float, scratch);
    float* row = values + (u64)blockIdx.x * width;
    float length = sqrtf(square_sum(row, width, wide, scratch));
    float factor = length > 0.0f ? 1.0f / length : 0.0f;
    for (u32 at = 8 * threadIdx.x; at < width; at += 8 * blockDim.x) {
        float x[8];
        load8(x, row + at, width - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) x[i] *= factor;
        store8(row + at, x, width - at, wide);
    }
}
REGISTER(unit_rows)

template <class T>
DEVICE void add_to_rows(T* values, const float* bias, u32 rows, u32 width, bool wide) {
    u32 groups = (width + 7) / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at / groups >= rows) return;
    u32 column = 8 * (at % groups), count = width - column;
    T* row = values + (u64)(at / groups) * width + column;
    float x[8], b[8];
    load8(x, row, count, wide);
    load8(b, bias + column, count, wide);
    UNROLL for (u32 i = 0; i < 8; i++) x[i] += b[i];
    store8(row, x, count, wide);
}

// values[row] += bias, a thread for each group of eight.
KERNEL(add_bias)(bf16* __restrict__ values, const float* __restrict__ bias, u32 rows, u32 width, u32 wide) {
    add_to_rows(values, bias, rows, width, wide);
}
REGISTER(add_bias)

KERNEL(add_bias_f32)(float* __restrict__ values, const float* __restrict__ bias, u32 rows, u32 width, u32 wide) {
    add_to_rows(values, bias, rows, width, wide);
}
REGISTER(add_bias_f32)
