// The host in a GPU's place: what kernels see of it. See fibers.cpp for how a block is run.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define KERNEL(name) static void name
#define REGISTER(name) static const host::Registration name##_registration{#name, &name};
#define DEVICE static inline
#define UNROLL
#define SHARED(type, name) type* const name = reinterpret_cast<type*>(host::shared_memory())
#define BOUNDS(threads, blocks)
#define __restrict__ __restrict

namespace host {

struct Index {
    uint32_t x, y, z;
};

// Of the fiber that runs.
extern thread_local Index thread_index, block_index, block_size, grid_size;

// All fibers of the block, or of the warp, that have not returned.
void meet_block();
void meet_warp();

// Shows `bytes` (at most 64) of this lane to its warp and returns those of all lanes, 64 apart. Every lane of the warp
// takes part. What is returned stays valid until the lane's next exchange.
const uint8_t* exchange(const void* mine, size_t bytes);

void* shared_memory();

void copy_async(void* to, const void* from, bool valid);
void copy_async_commit();
void copy_async_wait(int later);

void load_matrices(uint32_t (&to)[4], const void* shared, bool transposed);
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// Where in shared memory something lies, counted from a multiple of 1,024 bytes.
uint32_t shared_address(const void* at);

// Of a warp's share of a product of four warps: d (+)= a b^T, or a b if `transposed`. `left` is this lane's part of `a`, or null
// and `a` is what a descriptor names; so is `b`, of 8 `blocks` rows (columns if `transposed`). Done at once.
void group_mma(float (*d)[4], uint32_t blocks, const uint32_t* left, uint64_t a, uint64_t b, bool transposed, bool add);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

uint32_t lane();

template <class T>
T shuffle(T value, uint32_t from) {
    const uint8_t* all = exchange(&value, sizeof(T));
    T got;
    memcpy(&got, all + 64 * (from % 32), sizeof(T));
    return got;
}

// A kernel the launcher finds by name, with the sizes of its arguments.
struct Registration {
    const char* name;
    void (*call)(void (*kernel)(), void** arguments);
    void (*kernel)();
    const size_t* sizes;
    size_t count;
    const Registration* next;

    template <class... A>
    Registration(const char* name, void (*kernel)(A...))
        : name(name), call(&invoke<A...>), kernel(reinterpret_cast<void (*)()>(kernel)), count(sizeof...(A)) {
        static const size_t all[] = {sizeof(A)..., 0};
        sizes = all;
        next = first;
        first = this;
    }

    static const Registration* first;

private:
    template <size_t... I>
    struct Places {};
    template <size_t N, size_t... I>
    struct Count : Count<N - 1, N - 1, I...> {};
    template <size_t... I>
    struct Count<0, I...> {
        using Result = Places<I...>;
    };

    template <class... A, size_t... I>
    static void spread(void (*kernel)(A...), void** arguments, Places<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }

    template <class... A>
    static void invoke(void (*kernel)(), void** arguments) {
        spread(reinterpret_cast<void (*)(A...)>(kernel), arguments, typename Count<sizeof...(A)>::Result{});
    }
};

}  // namespace host

#define threadIdx (host::thread_index)
#define blockIdx (host::block_index)
#define blockDim (host::block_size)
#define gridDim (host::grid_size)

inline void __syncthreads() { host::meet_block(); }
inline void __syncwarp(uint32_t = 0xffffffffu) { host::meet_warp(); }
inline void __threadfence() {}

template <class T>
T __shfl_sync(uint32_t, T value, uint32_t from) {
    return host::shuffle(value, from);
}
template <class T>
T __shfl_xor_sync(uint32_t, T value, uint32_t step) {
    return host::shuffle(value, host::lane() ^ step);
}
template <class T>
T __shfl_down_sync(uint32_t, T value, uint32_t step) {
    uint32_t from = host::lane() + step;
    return host::shuffle(value, from < 32 ? from : host::lane());
}
template <class T>
T __shfl_up_sync(uint32_t, T value, uint32_t step) {
    uint32_t mine = host::lane();
    return host::shuffle(value, mine >= step ? mine - step : mine);
}
inline uint32_t __ballot_sync(uint32_t, bool flag) {
    uint8_t mine = flag;
    const uint8_t* all = host::exchange(&mine, 1);
    uint32_t bits = 0;
    for (uint32_t at = 0; at < 32; at++) bits |= (uint32_t)(all[64 * at] != 0) << at;
    return bits;
}
inline bool __any_sync(uint32_t mask, bool flag) { return __ballot_sync(mask, flag) != 0; }
inline bool __all_sync(uint32_t mask, bool flag) { return __ballot_sync(mask, flag) == 0xffffffffu; }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz((unsigned)bits); }

// One thread of the host runs all blocks of a launch, so plain arithmetic is atomic.
template <class T>
T atomicAdd(T* at, T value) {
    T before = *at;
    *at = before + value;
    return before;
}
template <class T>
T atomicMax(T* at, T value) {
    T before = *at;
    if (value > before) *at = value;
    return before;
}
template <class T>
T atomicMin(T* at, T value) {
    T before = *at;
    if (value < before) *at = value;
    return before;
}

// The high half of a product.
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T>
T min(T a, T b) { return a < b ? a : b; }
template <class T>
T max(T a, T b) { return a > b ? a : b; }
// Four products of signed bytes, summed.
inline int __dp4a(int a, int b, int sum) {
    for (int at = 0; at < 4; at++) sum += (int)(int8_t)(a >> (8 * at)) * (int)(int8_t)(b >> (8 * at));
    return sum;
}
template <class T>
T __ldg(const T* at) { return *at; }
