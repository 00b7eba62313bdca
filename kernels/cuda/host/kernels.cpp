// Every kernel, compiled for the host. Each file has a namespace of its own, as each is a module of its own on a device.
#include "../device.cuh"

namespace copy {
#include "../copy.cu"
}

extern "C" void pith_host_kernels() {}
