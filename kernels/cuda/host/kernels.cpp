// Every kernel, compiled for the host. Each file has a namespace of its own, as each is a module of its own on a device.
#include "../device.cuh"
#include "../matrix.cuh"

namespace copy {
#include "../copy.cu"
}

namespace dequantise {
#include "../dequantise.cu"
}

namespace embed_coded {
#include "../embed_coded.cu"
}

namespace gemm {
#include "../gemm.cu"
}

namespace gemv {
#include "../gemv.cu"
}

extern "C" void pith_host_kernels() {}
