// Activations of the feed-forward block, a thread for each group of eight.
//
// Exponentials and quotients are the fast ones: what they lose is far below a bfloat16's last bit, and with the exact ones
// arithmetic, not memory, would bound these kernels.
#include "device.cuh"

// x / (1 + e^-t): SiLU where t = x.
DEVICE float times_sigmoid(float x, float t) { return __fdividef(x, 1.0f + __expf(-t)); }

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), of which the second half is a sigmoid of twice the argument.
DEVICE float gelu_tanh(float x) { return times_sigmoid(x, 1.5957692f * (x + 0.044715f * x * x * x)); }

// out[row, i] = f(gate_up[row, i]) * gate_up[row, width + i]
KERNEL(gated)(const bf16* __restrict__ gate_up, u32 rows, u32 width, u32 gelu, u32 wide, bf16* __restrict__ out) {
    u32 groups = (width + 7) / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at / groups >= rows) return;
    u32 column = 8 * (at % groups), count = width - column;
    const bf16* row = gate_up + (u64)(at / groups) * 2 * width + column;
    float gate[8], up[8];
    load8(gate, row, count, wide);
    load8(up, row + width, count, wide);
    UNROLL for (u32 i = 0; i < 8; i++) {
        up[i] *= gelu ? gelu_tanh(gate[i]) : times_sigmoid(gate[i], gate[i]);
    }
    store8(out + (u64)(at / groups) * width + column, up, count, wide);
}
REGISTER(gated)

// x / 2 (1 + erf(x / sqrt 2)), by Abramowitz and Stegun's formula 7.1.26 for the complementary error function, as the CPU's.
DEVICE float gelu_erf(float x) {
    float size = x < 0.0f ? -x : x;
    float z = size * 0.70710678f;
    float t = __fdividef(1.0f, z * 0.3275911f + 1.0f);
    float p = 1.0614054f;
    p = p * t - 1.453152f;
    p = p * t + 1.4214138f;
    p = p * t - 0.28449672f;
    p = p * t + 0.25482959f;
    p = p * t;
    // A NaN is no larger than 0, but its size is NaN still.
    float linear = x > 0.0f ? x : 0.0f;
    return linear - 0.5f * size * (p * __expf(-z * z));
}

// values[row] = gelu(values[row] + bias)
KERNEL(gelu)(bf16* __restrict__ values, const float* __restrict__ bias, u32 rows, u32 width, u32 wide) {
    u32 groups = (width + 7) / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at / groups >= rows) return;
    u32 column = 8 * (at % groups), count = width - column;
    bf16* row = values + (u64)(at / groups) * width + column;
    float x[8], b[8];
    load8(x, row, count, wide);
    load8(b, bias + column, count, wide);
    UNROLL for (u32 i = 0; i < 8; i++) x[i] = gelu_erf(x[i] + b[i]);
    store8(row, x, count, wide);
}
REGISTER(gelu)
