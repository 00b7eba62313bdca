// How the host runs a block of threads: each is a fiber with a stack of its own, run until it meets a barrier.
//
// Warps run one after the other, and lanes within a warp, so that a result that leans on a barrier that is not there comes
// out wrong, and comes out otherwise when the order is turned round (`pith_host_launch`'s `backwards`). Shared memory holds
// NaN when a block begins and ends at a page that cannot be touched.

#include "host.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace host {

thread_local Index thread_index, block_index, block_size, grid_size;
const Registration* Registration::first = nullptr;

namespace {

const size_t STACK_BYTES = 128 << 10;
const uint32_t MOST_THREADS = 1024;

enum class State { Ready, AtWarp, AtBlock, Returned };

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

struct Fiber {
#ifdef __x86_64__
    void* stack_pointer;
#else
    ucontext_t context;
#endif
    State state;
    uint32_t exchanges;
    // Groups of copies that have begun, oldest first; the last is open.
    std::vector<std::vector<Copy>> copies;
};

// What one thread of the host needs to run blocks; made at its first launch.
struct Block {
    uint8_t* stacks;
    Fiber fibers[MOST_THREADS];
    uint32_t threads;
    uint32_t running;
    // Two rounds of what lanes show each other: a lane may be one exchange ahead of another.
    uint8_t shown[2][MOST_THREADS][64];
    uint8_t* shared_pages;
    size_t shared_room;
    uint8_t* shared;
    const Registration* kernel;
    void** arguments;
#ifdef __x86_64__
    void* scheduler;
#else
    ucontext_t scheduler;
#endif
};

thread_local Block* block;

size_t page() {
    static const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

uint8_t* pages(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) abort();
    return static_cast<uint8_t*>(at);
}

void run_fiber() {
    block->kernel->call(block->kernel->kernel, block->arguments);
    block->fibers[block->running].state = State::Returned;
}

#ifdef __x86_64__
// Saves what a callee must keep, changes stacks, and returns on the other.
extern "C" void pith_switch(void** save, void* to);
asm(R"(
.text
.type pith_switch, @function
pith_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size pith_switch, .-pith_switch
)");

extern "C" void pith_fiber_begins() {
    run_fiber();
    void* nowhere;
    pith_switch(&nowhere, block->scheduler);
    abort();
}

void begin(Fiber& fiber, uint8_t* stack) {
    // Six registers, where to go on, and a slot that keeps the stack aligned as after a call.
    uint64_t* top = reinterpret_cast<uint64_t*>(stack + STACK_BYTES) - 8;
    memset(top, 0, 64);
    top[6] = reinterpret_cast<uint64_t>(&pith_fiber_begins);
    fiber.stack_pointer = top;
}

void enter(Fiber& fiber) { pith_switch(&block->scheduler, fiber.stack_pointer); }
void leave(Fiber& fiber) { pith_switch(&fiber.stack_pointer, block->scheduler); }
#else
void begin(Fiber& fiber, uint8_t* stack) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = &block->scheduler;
    makecontext(&fiber.context, run_fiber, 0);
}

void enter(Fiber& fiber) { swapcontext(&block->scheduler, &fiber.context); }
void leave(Fiber& fiber) { swapcontext(&fiber.context, &block->scheduler); }
#endif

void wait(State at) {
    Fiber& fiber = block->fibers[block->running];
    fiber.state = at;
    leave(fiber);
}

// Runs one thread until it waits or returns.
void resume(uint32_t thread) {
    block->running = thread;
    thread_index = Index{thread, 0, 0};
    enter(block->fibers[thread]);
}

// Runs a warp until all of its lanes wait for the block or have returned. False: some wait for the warp, others never will.
bool run_warp(uint32_t first, bool backwards) {
    for (;;) {
        uint32_t at_warp = 0, at_block = 0, returned = 0;
        for (uint32_t step = 0; step < 32; step++) {
            uint32_t thread = first + (backwards ? 31 - step : step);
            if (block->fibers[thread].state == State::Ready) resume(thread);
            at_warp += block->fibers[thread].state == State::AtWarp;
            at_block += block->fibers[thread].state == State::AtBlock;
            returned += block->fibers[thread].state == State::Returned;
        }
        if (at_warp == 0) return true;
        // On a device, whoever exchanges with a lane that is elsewhere gets anything.
        if (at_warp != 32) return false;
        for (uint32_t thread = first; thread < first + 32; thread++) {
            if (block->fibers[thread].state == State::AtWarp) block->fibers[thread].state = State::Ready;
        }
    }
}

bool run_block(bool backwards) {
    uint32_t warps = block->threads / 32;
    for (uint32_t thread = 0; thread < block->threads; thread++) {
        Fiber& fiber = block->fibers[thread];
        fiber.state = State::Ready;
        fiber.exchanges = 0;
        fiber.copies.assign(1, {});
        begin(fiber, block->stacks + (size_t)thread * STACK_BYTES);
    }
    for (;;) {
        for (uint32_t step = 0; step < warps; step++) {
            uint32_t warp = backwards ? warps - 1 - step : step;
            if (!run_warp(warp * 32, backwards)) return false;
        }
        uint32_t waiting = 0;
        for (uint32_t thread = 0; thread < block->threads; thread++) {
            Fiber& fiber = block->fibers[thread];
            if (fiber.state == State::AtBlock) {
                fiber.state = State::Ready;
                waiting++;
            }
        }
        if (waiting == 0) return true;
    }
}

// Shared memory of `bytes` that ends where a page begins that cannot be touched.
void make_shared(size_t bytes) {
    size_t room = (bytes + page() - 1) / page() * page();
    if (block->shared_pages == nullptr || room > block->shared_room) {
        if (block->shared_pages != nullptr) munmap(block->shared_pages, block->shared_room + page());
        block->shared_pages = pages(room + page());
        block->shared_room = room;
        if (mprotect(block->shared_pages + room, page(), PROT_NONE) != 0) abort();
    }
    // As aligned as a device's, hence not flush with the guard where the size is not.
    block->shared = block->shared_pages + block->shared_room - (bytes + 15) / 16 * 16;
}

}  // namespace

void meet_block() { wait(State::AtBlock); }
void meet_warp() { wait(State::AtWarp); }
uint32_t lane() { return block->running % 32; }
void* shared_memory() { return block->shared; }

const uint8_t* exchange(const void* mine, size_t bytes) {
    uint32_t thread = block->running;
    uint32_t round = block->fibers[thread].exchanges++ % 2;
    memcpy(block->shown[round][thread], mine, bytes);
    meet_warp();
    return block->shown[round][thread / 32 * 32];
}

// Copies are done as late as their thread allows, so that one read too early finds what lay there before.
void copy_async(void* to, const void* from, bool valid) {
    if ((uintptr_t)to % 16 != 0 || (valid && (uintptr_t)from % 16 != 0)) abort();
    block->fibers[block->running].copies.back().push_back(Copy{to, from, valid});
}

void copy_async_commit() { block->fibers[block->running].copies.emplace_back(); }

void copy_async_wait(int later) {
    auto& copies = block->fibers[block->running].copies;
    while (copies.size() > (size_t)later + 1) {
        for (const Copy& copy : copies.front()) {
            if (copy.valid) memcpy(copy.to, copy.from, 16);
            else memset(copy.to, 0, 16);
        }
        copies.erase(copies.begin());
    }
}

void load_matrices(uint32_t (&to)[4], const void* shared, bool transposed) {
    if ((uintptr_t)shared % 16 != 0) abort();
    const uint8_t* all = exchange(shared, 16);
    uint32_t row = lane() / 4, column = lane() % 4 * 2;
    for (uint32_t matrix = 0; matrix < 4; matrix++) {
        uint16_t pair[2];
        for (uint32_t at = 0; at < 2; at++) {
            uint32_t r = transposed ? column + at : row, c = transposed ? row : column + at;
            memcpy(&pair[at], all + 64 * (8 * matrix + r) + 2 * c, 2);
        }
        memcpy(&to[matrix], pair, 4);
    }
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const uint8_t* all = exchange(mine, sizeof mine);
    auto word = [&](uint32_t from, uint32_t index) {
        uint32_t bits;
        memcpy(&bits, all + 64 * from + 4 * index, 4);
        return bits;
    };
    auto half = [](uint32_t bits, uint32_t which) { return float_of(which ? bits & 0xffff0000u : bits << 16); };
    uint32_t group = lane() / 4, pair = lane() % 4;
    for (uint32_t out = 0; out < 4; out++) {
        uint32_t row = out / 2, column = 2 * pair + out % 2;
        float sum = d[out];
        for (uint32_t k = 0; k < 16; k++) {
            float left = half(word(4 * group + k % 8 / 2, row + 2 * (k / 8)), k % 2);
            float right = half(word(4 * column + k % 8 / 2, 4 + k / 8), k % 2);
            sum += left * right;
        }
        d[out] = sum;
    }
}

namespace {

// Shared addresses count from here.
uint8_t* shared_origin() { return block->shared - (uintptr_t)block->shared % 1024; }

// The number a descriptor names at `across` and `deep` (what is summed over), by the canonical layouts of the 128-byte swizzle.
float described(uint64_t descriptor, uint32_t across, uint32_t deep, bool transposed) {
    if (descriptor >> 62 != 1) abort();
    uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4;
    uint32_t leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4, stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    uint32_t offset = transposed
        ? across / 64 * leading + deep / 8 * stride + deep % 8 * 128 + across % 64 * 2
        : across / 8 * stride + across % 8 * 128 + deep * 2;
    uint32_t address = start + offset;
    address ^= (address >> 7 & 7) << 4;
    uint16_t bits;
    memcpy(&bits, shared_origin() + address, 2);
    return float_of((uint32_t)bits << 16);
}

}  // namespace

uint32_t shared_address(const void* at) { return (uint32_t)(static_cast<const uint8_t*>(at) - shared_origin()); }

void group_mma(float (*d)[4], uint32_t blocks, const uint32_t* left, uint64_t a, uint64_t b, bool transposed, bool add) {
    uint32_t mine[4] = {0, 0, 0, 0};
    if (left != nullptr) memcpy(mine, left, sizeof mine);
    const uint8_t* all = exchange(mine, sizeof mine);
    uint32_t group = lane() / 4, pair = lane() % 4, warp = thread_index.x / 32 % 4;
    float rows[2][16];
    for (uint32_t k = 0; k < 16; k++) {
        for (uint32_t high = 0; high < 2; high++) {
            if (left == nullptr) {
                rows[high][k] = described(a, warp * 16 + group + 8 * high, k, false);
                continue;
            }
            uint32_t bits;
            memcpy(&bits, all + 64 * (4 * group + k % 8 / 2) + 4 * (high + 2 * (k / 8)), 4);
            rows[high][k] = float_of(k % 2 ? bits & 0xffff0000u : bits << 16);
        }
    }
    for (uint32_t column = 0; column < blocks; column++) {
        for (uint32_t part = 0; part < 4; part++) {
            float sum = add ? d[column][part] : 0.0f;
            uint32_t across = column * 8 + 2 * pair + part % 2;
            for (uint32_t k = 0; k < 16; k++) sum += rows[part / 2][k] * described(b, across, k, transposed);
            d[column][part] = sum;
        }
    }
}

float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return float_of(sign | 0x7f800000u | (rest & 0x3ff) << 13);
    return float_of(sign | rest << 13) * float_of(0x77800000u);  // 2^112
}

uint16_t float_to_half(float value) {
    uint32_t bits = bits_of(value), size = bits & 0x7fffffffu;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000u) return (uint16_t)(sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u));
    uint32_t rounded = size + 0xfffu + (size >> 13 & 1);
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

}  // namespace host

// Defined beside the kernels, so that whoever links this links them.
extern "C" void pith_host_kernels();

// Runs a kernel over a grid. 0, or a message in `why`, of at most `room` bytes.
extern "C" int pith_host_launch(const char* name, const uint32_t* blocks, uint32_t threads, uint32_t shared_bytes,
                                void** arguments, const size_t* sizes, size_t count, int backwards, char* why,
                                size_t room) {
    using namespace host;
    pith_host_kernels();
    const Registration* kernel = Registration::first;
    while (kernel != nullptr && strcmp(kernel->name, name) != 0) kernel = kernel->next;
    if (kernel == nullptr) return snprintf(why, room, "is not among those compiled for the host"), 1;
    if (count != kernel->count) {
        return snprintf(why, room, "takes %zu arguments, not %zu", kernel->count, count), 1;
    }
    for (size_t at = 0; at < count; at++) {
        if (sizes[at] != kernel->sizes[at]) {
            return snprintf(why, room, "takes %zu bytes as argument %zu, not %zu", kernel->sizes[at], at, sizes[at]), 1;
        }
    }
    if (threads == 0 || threads > MOST_THREADS || threads % 32 != 0) {
        return snprintf(why, room, "was given blocks of %u threads", threads), 1;
    }
    if (block == nullptr) {
        block = new Block();
        block->stacks = pages(STACK_BYTES * MOST_THREADS);
    }
    block->threads = threads;
    block->kernel = kernel;
    block->arguments = arguments;
    make_shared(shared_bytes);
    grid_size = Index{blocks[0], blocks[1], blocks[2]};
    block_size = Index{threads, 1, 1};
    uint64_t all = (uint64_t)blocks[0] * blocks[1] * blocks[2];
    for (uint64_t step = 0; step < all; step++) {
        uint64_t at = backwards ? all - 1 - step : step;
        block_index = Index{(uint32_t)(at % blocks[0]), (uint32_t)(at / blocks[0] % blocks[1]),
                            (uint32_t)(at / blocks[0] / blocks[1])};
        memset(block->shared, 0xff, (shared_bytes + 15) / 16 * 16);
        if (!run_block(backwards != 0)) {
            return snprintf(why, room, "has lanes of a warp that wait for what others of it never reach"), 1;
        }
    }
    return 0;
}
